"""Every error that GRAM raises on purpose.

GramError
├── DataError            a file that cannot be used as it is
│   ├── MissingColumn
│   └── BadRow           a row, with its line, column and value
├── ModelError           a model folder, or a backbone's weights, that cannot be used
├── IndexFolderError     an index folder that cannot be used
│   └── IndexMismatch    an index opened with another model than it was built with
├── SettingError         a setting outside its range
└── MissingExtra         an optional dependency that is not installed
"""

from __future__ import annotations

from pathlib import Path


class GramError(Exception):
    """What was wrong and how to mend it, in words for the person who runs the command."""


class DataError(GramError):
    """A file that cannot be used as it is. The message ends with the fix."""

    def __init__(self, path: str | Path, problem: str, fix: str = "") -> None:
        self.path, self.problem, self.fix = Path(path), problem, fix
        super().__init__(f"{path}: {problem}" + (f" Fix: {fix}" if fix else ""))


class MissingColumn(DataError):
    """A required column that the file does not have, under any of its known names."""


class BadRow(DataError):
    """One row that cannot be read. `line` counts from 1, the header included where there is one."""

    def __init__(
        self, path: str | Path, line: int, problem: str, fix: str = "", column: str = "", value: object = None
    ) -> None:
        self.line, self.column, self.value = line, column, value
        where = f"line {line}" + (f", column {column!r}" if column else "")
        try:
            shown = "" if value is None else f" (value: {str(value)[:80]!r})"
        except RecursionError:  # lists in lists as deep as JSON may have them
            shown = f" (value: a deeply nested {type(value).__name__})"
        super().__init__(path, f"{where}: {problem}{shown}", fix)


class ModelError(GramError):
    """A model folder, or a backbone's weights, that cannot be used."""


class IndexFolderError(GramError):
    """An index folder that cannot be used."""


class IndexMismatch(IndexFolderError):
    """An index opened with another model than it was built with."""


class SettingError(GramError):
    """A setting outside its range."""


class MissingExtra(GramError):
    """An optional dependency that is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        self.extra = extra
        fix = f"pip install -e '.[{extra}]' in GRAM's folder"
        super().__init__(f"{what} needs an extra that is not installed. Fix: {fix}")
