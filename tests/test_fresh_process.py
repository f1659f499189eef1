"""A fork of the server is as fresh as a new process, and its end is told as it was."""

import os
import signal
import subprocess
import sys

import fresh_process
import pytest


@pytest.fixture(params=["forked", "new"])
def kind(request, monkeypatch):
    """Both ways; the second is the only one where there is no fork, and what the first imitates."""
    if request.param == "forked" and sys.platform != "linux":
        pytest.skip("no fork here")
    monkeypatch.setattr(fresh_process, "FORKS", request.param == "forked")


pytestmark = pytest.mark.usefixtures("kind")


def said(*words, **options):
    """What a process prints that ends well."""
    done = fresh_process.run(*words, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_nothing_of_this_process_is_known_there(monkeypatch):
    """Neither its modules, nor what another has changed in them."""
    import anomalib_medclip.files as ours

    monkeypatch.setattr(ours, "changed_here", True, raising=False)
    show = "import sys; from anomalib_medclip import files; print('pytest' in sys.modules, "
    show += "'fresh_process' in sys.modules, hasattr(files, 'changed_here'))"
    assert said("-c", show) == ["False"] * 3
    assert said("-c", f"{show}; files.changed_here = True") == ["False"] * 3
    assert said("-c", show) == ["False"] * 3


def test_folder_environment_and_words_are_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("OF_THE_TEST", "kept")
    show = "import os, sys; print(os.getcwd(), os.environ.get('OF_THE_TEST'), *sys.argv, sep='\\n')"
    assert said("-c", show, "a", "b", cwd=tmp_path) == [str(tmp_path), "kept", "-c", "a", "b"]
    assert said("-c", show, env={"PATH": ""})[1] == "None"
    monkeypatch.chdir(tmp_path)
    assert said("-c", show)[0] == str(tmp_path)
    assert os.environ["OF_THE_TEST"] == "kept"
    seen = "import subprocess; print(subprocess.getoutput('echo $OF_THE_TEST; pwd'))"
    assert said("-c", seen) == ["kept", str(tmp_path)], "the children of it see the same"


def test_it_finds_modules_where_a_new_process_does(tmp_path, monkeypatch):
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "near.py").write_text("print(__name__)")
    (tmp_path / "script.py").write_text("import sys, near; print(__name__, *sys.argv)")
    (tmp_path / "path" / "script.py").write_text((tmp_path / "script.py").read_text())
    beside = tmp_path / "path" / "script.py"
    assert said(beside, "x") == ["near", "__main__", str(beside), "x"]
    assert said("-m", "near", cwd=tmp_path / "path") == ["__main__"]
    assert fresh_process.run("-m", "near", cwd=tmp_path).returncode == 1
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    assert said(tmp_path / "script.py")[0] == "near"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("pass", 0),
        ("import sys; sys.exit(3)", 3),
        ("import os; os._exit(5)", 5),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("raise ValueError('so it ended')", 1),
    ],
)
def test_its_end_is_told_as_it_was(code, status):
    done = fresh_process.run("-c", code)
    assert done.returncode == status
    assert ("ValueError: so it ended" in done.stderr) == (status == 1)


def test_it_ends_as_an_interpreter_does():
    code = "import atexit, threading, time; atexit.register(print, 'last')\n"
    code += "threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()"
    assert said("-c", code) == ["thread", "last"]
    code = "import sys; sys.excepthook = lambda kind, *_: print(kind.__name__); 1 / 0"
    assert fresh_process.run("-c", code).stdout == "ZeroDivisionError\n"
    done = fresh_process.run("-c", "raise SystemExit('in words')")
    assert (done.returncode, done.stderr) == (1, "in words\n")


def test_its_streams_are_files_or_pipes(tmp_path):
    (tmp_path / "in").write_text("words")
    copy = "import sys; sys.stdout.write(sys.stdin.read()); sys.stderr.write('aside')"
    with (tmp_path / "in").open() as given, (tmp_path / "out").open("w") as taken:
        done = fresh_process.run("-c", copy, stdin=given, stdout=taken)
    assert (done.returncode, done.stdout, done.stderr) == (0, None, "aside")
    assert (tmp_path / "out").read_text() == "words"
    with fresh_process.start("-c", copy, stdin=subprocess.PIPE) as process:
        process.stdin.write("typed")
        process.stdin.close()
        assert process.stdout.read() == "typed"
    assert process.returncode == 0


def test_more_than_a_pipe_holds_is_read():
    code = "import sys; print('a' * 300_000); print('b' * 300_000, file=sys.stderr)"
    done = fresh_process.run("-c", code)
    assert (len(done.stdout), len(done.stderr)) == (300_001, 300_001)


def test_one_that_runs_on_can_be_waited_for_and_killed():
    wait = "import time; print('begun', flush=True); time.sleep(60)"
    with fresh_process.start("-c", wait) as process:
        assert process.stdout.readline() == "begun\n"
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.01)
        process.kill()
    assert process.poll() == -signal.SIGKILL
    with pytest.raises(subprocess.TimeoutExpired):
        fresh_process.run("-c", wait, timeout=0.5)


def test_a_session_of_its_own_is_killed_as_a_whole():
    code = "import os, time; os.fork(); os.write(1, b'%d\\n' % os.getpid()); time.sleep(60)"
    with fresh_process.start("-c", code, new_session=True) as process:
        both = {int(process.stdout.readline()) for _ in range(2)}
        assert process.pid in both
        assert {os.getpgid(one) for one in both} == {process.pid}
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait(timeout=60) == -signal.SIGKILL
    assert os.getpgid(0) != process.pid


def test_where_it_cannot_begin_it_says_so(tmp_path):
    with pytest.raises(OSError, match=r"not start|No such file"):
        fresh_process.run("-c", "pass", cwd=tmp_path / "gone")
