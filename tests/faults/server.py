"""Run commands in forks of a process that has imported everything.

Reads one request a line: the words of a command, the faults, after how many seconds to
kill it, and a file for its output. Answers with its exit status; negative: the signal.
"""

import json
import os
import signal
import sys
import time
import traceback

from dicomdask.cli import main
from tests.faults import hooks


def run(request):
    """Run one command in this process, which is a fork."""
    os.setsid()
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    if request["faults"]:
        os.environ[hooks.VARIABLE] = json.dumps(request["faults"])
        hooks.install()
    try:
        main(request["words"], prog_name="dicomdask")
    except SystemExit as end:
        return end.code or 0
    return 0


def wait(child, seconds):
    """Return a child's status; kill its group when time is over."""
    if seconds is None:
        return os.waitpid(child, 0)[1]
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        time.sleep(0.002)
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:  # it has not made its group yet
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def serve():
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            code = 70
            try:
                code = run(request)
            except BaseException:  # noqa: BLE001 - the fork ends here, always
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        status = wait(child, request["seconds"])
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
