"""What a command prints, into streams as they are: other encodings, a reader that leaves, a full disk."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
CHECKPOINT = ROOT / "tests" / "versions" / "0.1.0" / "run"
TEXT = CHECKPOINT.parent / "data" / "val" / "shard-00000.txt"
NOT_UTF8 = ([b"\xff"], [b"train", b"--out-dir", b"caf\xe9"], [b"train", b"--caf\xe9"], [b"train", b"\xe9"])


Stream = str | int


def command(
    *args: str | bytes, stdout: Stream = subprocess.PIPE, stderr: Stream = subprocess.PIPE, **env: str
) -> "subprocess.CompletedProcess[bytes]":
    """A real command; a stream given by its path is opened."""
    streams = {
        name: os.open(where, os.O_WRONLY) if isinstance(where, str) else where
        for name, where in (("stdout", stdout), ("stderr", stderr))
    }
    begin = [] if args[0] == "-c" else ["-m", "litmoe"]
    try:
        return subprocess.run(
            [sys.executable, *begin, *args],
            stdout=streams["stdout"],
            stderr=streams["stderr"],
            env={**os.environ, **env},
            timeout=120,
            check=False,
        )
    finally:
        for descriptor in streams.values():
            if descriptor not in (subprocess.PIPE, None):
                os.close(descriptor)


SAYS = "from litmoe.cli.console import Console; console = Console('p')\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "ascii:strict", "utf-8", "latin-1:strict"])
def test_what_an_encoding_lacks_is_written_as_its_escape(encoding: str) -> None:
    done = command(
        "-c",
        SAYS + "console.say('café \u2019 😀 \\udcff'); console.warn('œ'); print('中')",
        PYTHONIOENCODING=encoding,
    )
    assert done.returncode == 0, done.stderr
    name = encoding.partition(":")[0]
    expected = "café \u2019 😀 \udcff\n中\n".encode(name, "backslashreplace")
    assert done.stdout.replace(b"\r\n", b"\n") == expected
    assert done.stderr.replace(b"\r\n", b"\n") == "œ\n".encode(name, "backslashreplace")


@needs_full
@pytest.mark.parametrize(
    "code",
    ["console.say('x')", "console.write('x' * 100_000)", "console.say('x'); console.say('x'); print('x')"],
)
def test_a_full_disk_is_one_line_and_the_work_goes_on(code: str) -> None:
    goes_on = (
        "\nimport sys; sys.exit(7 if console.exit_code(True) == 1 and not console.exit_code(False) else 8)"
    )
    done = command("-c", SAYS + code + goes_on, stdout=str(FULL))
    assert done.returncode == 7
    assert done.stderr.decode().splitlines() == [
        "p: stdout cannot be written to (No space left on device); nothing more is printed"
    ]


@needs_full
def test_no_stream_at_all_takes_anything() -> None:
    done = command(
        "-c", SAYS + "console.say('x'); console.warn('y'); print('z')", stdout=str(FULL), stderr=str(FULL)
    )
    assert done.returncode == 0


def test_a_closed_stdout() -> None:
    """Closed by who started the command: nothing is wanted. Closed under it: that is one line."""
    done = command(
        "-c", "import os, sys; os.close(1)\n" + SAYS + "console.say('x'); sys.exit(console.exit_code(True))"
    )
    assert (done.returncode, done.stderr) == (0, b"")
    code = "import sys\n" + SAYS + "sys.stdout.close(); console.say('x'); sys.exit(console.exit_code(True))"
    done = command("-c", code)
    assert done.returncode == 1
    assert done.stderr.decode().count("\n") == 1


def head(*args: str, **env: str) -> tuple[int, bytes, str]:
    """A command whose reader takes the first bytes and leaves: exit code, bytes, stderr."""
    process = subprocess.Popen(
        [sys.executable, *(args if args[0] == "-c" else ("-m", "litmoe", *args))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **env},
    )
    assert process.stdout is not None and process.stderr is not None
    first = process.stdout.read(1)
    process.stdout.close()
    err = process.stderr.read().decode()
    process.stderr.close()
    return process.wait(timeout=120), first, err


def test_a_reader_that_leaves_is_no_mistake(tmp_path: Path) -> None:
    """Quietly: it has seen enough. The work goes on to its end."""
    file = tmp_path / "done"
    code = SAYS + f"for _ in range(20_000): console.say('x' * 50)\nopen({str(file)!r}, 'w').close()"
    assert head("-c", code) == (0, b"x", "")
    assert file.exists()


@needs_full
@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["train", "--help", "all"],
        ["train", "--preset", "tiny", "--print-config"],
        ["generate", "--checkpoint", str(CHECKPOINT), "--max-new-tokens", "20"],
        [
            "evaluate",
            "--checkpoint",
            str(CHECKPOINT),
            "--data",
            str(CHECKPOINT.parent / "data" / "val" / "shard-00000.txt"),
        ],
    ],
    ids=lambda args: args[0],
)
def test_a_command_whose_result_is_lost_has_failed(args: list[str]) -> None:
    done = command(*args, stdout=str(FULL))
    assert done.returncode == 1
    lines = [line for line in done.stderr.decode().splitlines() if "cannot be written to" in line]
    assert len(lines) == 1 and "Traceback" not in done.stderr.decode()


def test_text_is_written_only_as_long_as_somebody_reads_it() -> None:
    """``generate | head``: the end of a text of 100,000 tokens is not waited for."""
    args = ["generate", "--checkpoint", str(CHECKPOINT), "--prompt", "Once", "--num-samples", "200"]
    code, first, err = head(*args)
    assert (code, first) == (0, b"O") and "Traceback" not in err


@pytest.mark.skipif(sys.platform == "win32", reason="arguments are text there")
def test_bytes_that_are_no_text_are_one_line() -> None:
    for args in (
        [b"\xff"],
        [b"train", b"--out-dir", b"caf\xe9"],
        [b"train", b"--caf\xe9", b"1"],
        [b"train", b"\xe9"],
    ):
        done = command(*args)
        assert (done.returncode, done.stdout) == (2, b"")
        assert done.stderr.count(b"\n") == 1 and b"\\udc" in done.stderr
        done.stderr.decode("utf-8")


@needs_full
def test_data_is_prepared_whatever_becomes_of_its_lines(tmp_path: Path) -> None:
    source = tmp_path / "中文 é.txt"
    source.write_text("\n\n".join(f"Cat {n} sat on the mat." for n in range(400)), encoding="utf-8")
    args = ["prepare", "--source", str(source), "--document-boundaries", "blank-line", "--tokenizer", "train"]
    for number, (stdout, encoding) in enumerate([(str(FULL), "utf-8"), (subprocess.PIPE, "ascii")]):
        folder = tmp_path / str(number)
        where = [
            "--data-dir",
            str(folder),
            "--tokenizer-dir",
            str(folder / "tokenizer"),
            "--vocab-size",
            "300",
        ]
        done = command(*args, *where, stdout=stdout, PYTHONIOENCODING=encoding)
        assert done.returncode == 0, done.stderr
        assert (folder / "train" / "train" / "tokens.bin").is_file()
        assert b"Traceback" not in done.stderr and b"\r" not in done.stderr
