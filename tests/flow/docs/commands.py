"""`posthouse` for the pages' examples, imported once: each command is a fork that has it all.

    python commands.py serve SOCKET           until it is terminated
    python commands.py SOCKET argument…       as `python -m posthouse argument…`

Starting the interpreter anew for each of a page's forty commands would take most of a minute.
"""

import array
import json
import os
import socket
import sys


def serve(path: str) -> None:
    from posthouse import cli

    cli.program()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path + ".new")
    listener.listen()
    os.rename(path + ".new", path)  # noqa: PTH104 - there from when it can be connected to
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            os._exit(_run(connection))
        connection.close()
        os.wait()


def _run(connection: socket.socket) -> int:
    """In the fork: the caller's files, directory and arguments; the answer is the exit code."""
    from posthouse import cli

    data, files, _, _ = socket.recv_fds(connection, 65536, 3)
    asked = json.loads(data)
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.environ.clear()
    os.environ.update(asked["environ"])
    os.chdir(asked["cwd"])
    try:
        code = cli.main(asked["arguments"])
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(bytes([code]))
    return 0


def ask(path: str, arguments: list[str]) -> int:
    asked = {"arguments": arguments, "cwd": os.getcwd(), "environ": dict(os.environ)}  # noqa: PTH109
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        socket.send_fds(connection, [json.dumps(asked).encode()], array.array("i", [0, 1, 2]))
        answer = connection.recv(1)
    return answer[0] if answer else 1


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        sys.exit(ask(sys.argv[1], sys.argv[2:]))
