"""What an installed package holds beside its modules."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE_DATA = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
    "package-data"
]


@pytest.mark.parametrize(
    ("package", "pattern"), [(name, each) for name in PACKAGE_DATA for each in PACKAGE_DATA[name]]
)
def test_files_that_go_out_with_a_package_are_there(package, pattern):
    assert list((ROOT / package.replace(".", "/")).glob(pattern))


def test_every_error_page_goes_out_with_the_command_line():
    shipped = {page.name for page in (ROOT / "flint" / "error_pages").glob("*.md")}
    assert shipped == {page.name for page in (ROOT / "docs" / "errors").glob("*.md")}
