"""Processes whose clock is wrong."""

from pathlib import Path

# sitecustomize.py of a process whose clock is wrong; sleeping and waiting do not change.
SHIFTED_CLOCK = """import ctypes, datetime, gc, os, time

shift = float(os.environ["CLOCK_SHIFT"])
true_time, true_now = time.time, datetime.datetime.now
delta = datetime.timedelta(seconds=shift)
time.time = lambda: true_time() + shift
# Also for modules that import the class itself; C allows no assignment to its attributes.
attributes = gc.get_referents(datetime.datetime.__dict__)[0]
attributes["now"] = classmethod(lambda cls, tz=None: true_now(tz) + delta)
ctypes.pythonapi.PyType_Modified(ctypes.py_object(datetime.datetime))
"""


def shifted_clock(folder: Path, seconds: float) -> dict[str, str]:
    """The variables that set the clock of one process ahead, or back if negative."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(SHIFTED_CLOCK)
    return {"PYTHONPATH": str(folder), "CLOCK_SHIFT": str(seconds)}
