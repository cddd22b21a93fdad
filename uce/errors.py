"""Every error a user can cause, and the exit code each one ends the command line with.

UceError                                exit   (never raised itself; any other exception is a bug: traceback, exit 1)
├── UsageError (ValueError)               2    an option, a config key, a combination
├── InputError (ValueError)               3    the cells file; also `uce check` when the verdict is no
├── ModelError (ValueError)               4    a model folder or gene table is missing, damaged or does not fit
├── OutputExistsError (FileExistsError)   5    would overwrite
└── StorageError (OSError)                6    the disk is full or the folder cannot be written
Interrupted runs exit with 130 and say how to resume.
"""


class UceError(Exception):
    """Base of all errors that a user can mend; `exit_code` is what the command line returns."""

    exit_code = 1


class UsageError(UceError, ValueError):
    """An option, a configuration key or a combination of them is not usable."""

    exit_code = 2


class InputError(UceError, ValueError):
    """The file or object with the cells cannot be embedded as it is."""

    exit_code = 3


class ModelError(UceError, ValueError):
    """A model folder or a gene table is missing, damaged or does not fit."""

    exit_code = 4


class OutputExistsError(UceError, FileExistsError):
    """The result would overwrite something that is there already."""

    exit_code = 5


class StorageError(UceError, OSError):
    """The result cannot be written: no space, no permission, no such folder."""

    exit_code = 6
