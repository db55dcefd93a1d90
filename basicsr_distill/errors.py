"""The one error that the user can correct, and the one that is another rank's."""


class InputError(Exception):
    """The user's input (option file, photo, checkpoint, folder) is wrong.

    The message is one sentence that names the file or key and says what to do. The command line prints it alone,
    without a traceback, and exits with code 2.
    """


class LostRankError(Exception):
    """Another rank of the process group has ended, and says why itself."""
