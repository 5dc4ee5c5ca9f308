"""liblxc's log lines become one line of reason, the cause first."""

from __future__ import annotations

from execdrv_lxc.log import explain, parse_errors

PREFIX = "lxc xdt-1 20261125030811.117"


def line(level: str, message: str) -> str:
    return f"{PREFIX} {level:8} start - ../src/lxc/start.c:lxc_poll:622 - {message}\n"


def test_errors_are_found_among_the_rest_in_their_order() -> None:
    text = line("TRACE", "begins") + line("ERROR", "cause - here") + line("FATAL", "effect")
    assert parse_errors(text) == ["cause - here", "effect"]


def test_a_line_without_a_containers_name_is_read_too() -> None:
    text = "lxc 20261125030811.117 ERROR    conf - ../src/lxc/conf.c:setup:1 - why\n"
    assert parse_errors(text) == ["why"]


def test_what_every_run_says_is_left_out() -> None:
    message = "No such file or directory - Can't open /dev/null"
    assert explain(line("ERROR", message)) == ""


def test_text_that_is_no_log_is_left_out() -> None:
    assert parse_errors("lxc_container: something\n\nERROR\n") == []


def test_the_explanation_is_one_bounded_line() -> None:
    text = "".join(line("ERROR", f"message {number} " + "x" * 200) for number in range(9))
    assert len(explain(text)) == 300
    assert explain(text).startswith("message 0 ") and "\n" not in explain(text)
