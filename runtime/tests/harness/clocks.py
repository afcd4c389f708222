"""Processes whose clock is off."""

from pathlib import Path

# sitecustomize.py of a process whose clock is off; sleeping and waiting stay as they are.
SHIFTED_CLOCK = """import ctypes, datetime, gc, os, time

shift = float(os.environ["CLOCK_SHIFT"])
true_time, true_now = time.time, datetime.datetime.now
delta = datetime.timedelta(seconds=shift)
time.time = lambda: true_time() + shift
# Also for those that import the class itself: C allows no assignment to its attributes.
attributes = gc.get_referents(datetime.datetime.__dict__)[0]
attributes["now"] = classmethod(lambda cls, tz=None: true_now(tz) + delta)
ctypes.pythonapi.PyType_Modified(ctypes.py_object(datetime.datetime))
"""


def shifted_clock(folder: Path, seconds: float) -> dict[str, str]:
    """Variables that set the clock of one process ahead, or with a minus back."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(SHIFTED_CLOCK)
    return {"PYTHONPATH": str(folder), "CLOCK_SHIFT": str(seconds)}
