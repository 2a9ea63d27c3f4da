"""What the list of verbs says is whole."""

from typer.testing import CliRunner

from qtarget.search.cli.main import app


def test_no_sentence_is_cut():
    for arguments in (["--help"], ["cache", "--help"]):
        said = CliRunner().invoke(app, arguments, env={"COLUMNS": "80"}).output
        verbs = said.partition("Commands:")[2]
        assert "..." not in verbs and len(verbs.splitlines()) > 5
        assert max(map(len, said.splitlines())) <= 80
