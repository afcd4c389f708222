"""Keeps what Jinja compiles, for the forks of Copier.

Copier compiles the same questions and templates for each render, and an update renders
three times. Jinja's own interface for such a cache looks at the source's checksum.
"""

import hashlib
import os
import sys
from pathlib import Path
from typing import Any

from jinja2 import BytecodeCache, Environment
from jinja2.bccache import Bucket

# What else the result depends on.
_OPTIONS = (
    *("block_start_string", "block_end_string", "variable_start_string"),
    *("variable_end_string", "comment_start_string", "comment_end_string"),
    *("line_statement_prefix", "line_comment_prefix", "trim_blocks", "lstrip_blocks"),
    *("newline_sequence", "keep_trailing_newline", "optimized", "autoescape"),
)


class _Compiled(BytecodeCache):
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()

    def get_cache_key(self, name: str, filename: str | None = None) -> str:
        """Without the file's name: each run of Copier has a clone of its own."""
        return name

    def _file(self, bucket: Bucket) -> Path:
        by = bucket.environment
        options = (
            type(by),
            *(getattr(by, name) for name in _OPTIONS),
            [*by.extensions],
        )
        key = hashlib.sha256(repr((bucket.key, options)).encode()).hexdigest()
        return self._folder / f"{key[:20]}-{bucket.checksum}"

    def load_bytecode(self, bucket: Bucket) -> None:
        if self._file(bucket).exists():
            bucket.bytecode_from_string(self._file(bucket).read_bytes())

    def dump_bytecode(self, bucket: Bucket) -> None:
        written = self._folder / f"{os.getpid()}"
        written.write_bytes(bucket.bytecode_to_string())
        written.rename(self._file(bucket))


_compiled = _Compiled(Path(sys.argv[1]).with_name("compiled"))
_init = Environment.__init__


def _init_with_cache(self: Environment, *args: Any, **options: Any) -> None:
    _init(self, *args, **{"bytecode_cache": _compiled, **options})


Environment.__init__ = _init_with_cache  # type: ignore[method-assign]
