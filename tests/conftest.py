"""What is made once for several test files."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings
from selenium import webdriver
from support.searches import run, write_space

# how long an example takes says more about the machine than about the code
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes first: begun last, they would leave the other workers idle."""
    minutes = ("test_kills.py", "test_search.py", "test_running.py", "test_deploy.py")
    slow = {item.path for item in items if item.get_closest_marker("slow")}

    def turn(item: pytest.Item) -> tuple[int, bool]:
        name = item.path.name
        return minutes.index(name) if name in minutes else len(minutes), item.path not in slow

    items.sort(key=turn)


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> tuple[Path, str]:
    """A folder with a finished search `tiny`, and what it printed; of all workers the same."""
    own = tmp_path_factory.getbasetemp()
    shared = own if worker_id == "master" else own.parent
    folder, printed = shared / "searched", shared / "searched.txt"
    with FileLock(shared / "searched.lock"):
        if not printed.exists():
            folder.mkdir()
            write_space(folder)
            done = run(folder, "search", "space.yaml", "--name", "tiny")
            assert done.returncode == 0, done.stderr
            assert done.stderr == ""
            printed.write_text(done.stdout)
    return folder, printed.read_text()


@pytest.fixture
def browser() -> Iterator[webdriver.Chrome]:
    """Chromium without a window and without a network beyond this machine."""
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.skip("needs the Debian packages chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = str(programs[0])
    # as root there is no sandbox; small /dev/shm in containers; no lookups of its own
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu",
                     "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"):  # fmt: skip
        options.add_argument(f"--{argument}")
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(programs[1])))
    try:
        yield driver
    finally:
        driver.quit()
