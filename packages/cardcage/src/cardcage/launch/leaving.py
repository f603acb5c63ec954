"""Running a plugin's main function in a process of its own, and leaving as an ordinary interpreter would.

Runs behind the walls, in forks of the fork server and of a container's first process. Standard library alone.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import NoReturn


def leave_after(environment: "Mapping[str, str]", main: "Callable[[], object]") -> "NoReturn":
    """Call `main` in `environment` and end the process with what comes of it."""
    code = 0
    try:
        os.umask(0o077)
        for name, value in environment.items():  # empty until now; `update` asks first what kind of mapping it is
            os.environ[name] = value
        main()
    except SystemExit as leaving:
        code = _exit_code(leaving)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    finally:
        _finish()
        os._exit(code & 0xFF)


def _exit_code(leaving: SystemExit) -> int:
    if leaving.code is None or isinstance(leaving.code, int):
        return leaving.code or 0
    sys.stderr.write(f"{leaving.code}\n")
    return 1


def _finish() -> None:
    """What the interpreter does at its end, which `os._exit` leaves out: join threads, run exit functions, flush."""
    import atexit

    try:
        threading = sys.modules.get("threading")
        if threading is not None:
            threading._shutdown()
        atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
