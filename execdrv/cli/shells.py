"""The completion scripts of three shells, made from a description of the commands. Pure text."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from execdrv.cli.completion import Command, Option, Values, flatten

#: How each shell asks for names: by the command itself.
_ASK = {
    "drivers": "execdrv drivers --names",
    "containers": "execdrv ps --names",
    "roots": "execdrv rootfs list --names",
}


# --- bash --------------------------------------------------------------------------------------

_BASH = r"""# made by `execdrv completion bash`

# _execdrv_look PATH: what may follow the command PATH.
_execdrv_look() {
    flags= valued= children= values=
    case $1 in
@COMMANDS@
    esac
}

# _execdrv_values FLAG: what the value of an option may be.
_execdrv_values() {
    case $1 in
@VALUES@
    *) ;;
    esac
}

_execdrv_reply() {
    case $1 in
    '') ;;
    @files) compopt -o filenames; COMPREPLY=($(compgen -f -- "$cur")) ;;
    @directories) compopt -o filenames; COMPREPLY=($(compgen -d -- "$cur")) ;;
    @command) COMPREPLY=($(compgen -c -- "$cur")) ;;
    @drivers) COMPREPLY=($(compgen -W "$(@ASK_DRIVERS@ 2>/dev/null)" -- "$cur")) ;;
    @containers) COMPREPLY=($(compgen -W "$(@ASK_CONTAINERS@ 2>/dev/null)" -- "$cur")) ;;
    @roots) COMPREPLY=($(compgen -W "$(@ASK_ROOTS@ 2>/dev/null)" -- "$cur")) ;;
    *) COMPREPLY=($(compgen -W "$1" -- "$cur")) ;;
    esac
}

_execdrv() {
    local IFS=$' \t\n' flags valued children values
    local cur=${COMP_WORDS[COMP_CWORD]} path= flag= word i
    COMPREPLY=()
    _execdrv_look ''
    # Bash splits --flag=value at the sign.
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $flag && $word != '=' ]]; then
            flag=
        elif [[ $word == '=' ]]; then
            :
        elif [[ $word == -- && $values == @command ]]; then
            flag= path=--
            break
        elif [[ $word == -* ]]; then
            [[ " $valued " != *" $word "* ]] || flag=$word
        elif [[ " $children " == *" $word "* ]]; then
            path="${path:+$path }$word"
            _execdrv_look "$path"
        elif [[ $values == @command ]]; then
            path=--
            i=COMP_CWORD
        fi
    done
    if [[ $path == -- ]]; then
        compopt -o default
        [[ ${COMP_WORDS[COMP_CWORD - 1]} != -- ]] || _execdrv_reply @command
    elif [[ $flag ]]; then
        [[ $cur != '=' ]] || cur=
        _execdrv_reply "$(_execdrv_values "$flag")"
    elif [[ $cur == -* ]]; then
        COMPREPLY=($(compgen -W "$flags" -- "$cur"))
    elif [[ $children ]]; then
        COMPREPLY=($(compgen -W "$children" -- "$cur"))
    else
        _execdrv_reply "$values"
    fi
}

complete -F _execdrv execdrv
"""


def make_bash(commands: list[Command]) -> str:
    """A completion script for bash 4 or newer."""
    looks = [f"    '') children='{' '.join(command.name for command in commands)}' ;;"]
    values: dict[str, str] = {}
    for path, command in flatten(commands):
        flags = " ".join(option.flags[-1] for option in command.options)
        valued = " ".join(option.flags[-1] for option in command.options if option.takes_value)
        children = " ".join(child.name for child in command.children)
        looks.append(
            f"    '{path}') flags='{flags}' valued='{valued}' children='{children}' "
            f"values='{_bash_values(command.values)}' ;;"
        )
        for option in command.options:
            if option.takes_value and option.values:
                values[option.flags[-1]] = _bash_values(option.values)
    shown = [f"    {flag}) echo '{words}' ;;" for flag, words in sorted(values.items())]
    script = _BASH.replace("@COMMANDS@", "\n".join(looks)).replace("@VALUES@", "\n".join(shown))
    for kind, ask in _ASK.items():
        script = script.replace(f"@ASK_{kind.upper()}@", ask)
    return script


def _bash_values(values: Values) -> str:
    return f"@{values}" if isinstance(values, str) else " ".join(values)


# --- zsh ---------------------------------------------------------------------------------------

_ZSH_ACTIONS = {
    "files": "_files",
    "directories": "_files -/",
    "command": "_normal",
    "drivers": "_execdrv_drivers",
    "containers": "_execdrv_containers",
    "roots": "_execdrv_roots",
}


def make_zsh(commands: list[Command]) -> str:
    """A completion function for zsh."""
    lines = [
        "#compdef execdrv",
        "# zsh completion for execdrv, made by `execdrv completion zsh`",
        "",
    ]
    for kind, ask in _ASK.items():
        lines += [
            f"_execdrv_{kind}() {{",
            f'    local -a names=(${{(f)"$({ask} 2>/dev/null)"}})',
            f"    compadd -a names  # {kind}",
            "}",
            "",
        ]
    for path, command in flatten(commands):
        lines += [*_zsh_function(path, command), ""]
    lines += _zsh_choice("_execdrv", "", commands)
    lines += ["", '_execdrv "$@"', ""]
    return "\n".join(lines)


def _zsh_function(path: str, command: Command) -> list[str]:
    name = _zsh_name(path)
    if command.children:
        return _zsh_choice(name, path, command.children)
    specs = [_zsh_option(option) for option in command.options]
    if command.values == "command":
        # The job's own words, completed as if they stood alone.
        specs.append("'(-)1:command: _command_names -e'")
        specs.append("'*::argument: _normal'")
    elif command.values:
        specs.append(f"'*:{_zsh_text(command.name)}:{_zsh_action(command.values)}'")
    return [f"{name}() {{", "    _arguments -S -A '-*' \\", *_continued(specs), "}"]


def _zsh_choice(name: str, path: str, commands: Sequence[Command]) -> list[str]:
    described = [shlex.quote(f"{one.name}:{one.text}") for one in commands]
    cases = [f"    {one.name}) {_zsh_name(f'{path} {one.name}'.strip())} ;;" for one in commands]
    return [
        f"{name}() {{",
        f"    local -a known=({' '.join(described)})",
        "    if ((CURRENT == 2)); then",
        "        _describe command known",
        "        return",
        "    fi",
        "    shift words",
        "    ((CURRENT--))",
        "    case $words[1] in",
        *cases,
        "    esac",
        "}",
    ]


def _zsh_name(path: str) -> str:
    return "_execdrv_" + path.replace(" ", "_") + "_words"


def _zsh_option(option: Option) -> str:
    text = _zsh_text(option.text)
    flag = option.flags[-1]
    if not option.takes_value:
        return shlex.quote(f"{flag}[{text}]")
    return shlex.quote(f"*{flag}=[{text}]:value:{_zsh_action(option.values)}")


def _zsh_action(values: Values) -> str:
    if isinstance(values, str):
        return _ZSH_ACTIONS[values]
    return f"({' '.join(values)})" if values else " "


def _zsh_text(text: str) -> str:
    for special in ("\\", "[", "]", ":"):
        text = text.replace(special, "\\" + special)
    return text


def _continued(specs: list[str]) -> Iterator[str]:
    for spec in specs[:-1]:
        yield f"        {spec} \\"
    yield f"        {specs[-1]}"


# --- fish --------------------------------------------------------------------------------------

_FISH = """# made by `execdrv completion fish`

# Whether the words before the cursor begin with a command path, and none of the job's own is there.
function __execdrv_at
    set -l words (commandline -opc)
    set -l wanted execdrv $argv
    for number in (seq (count $wanted))
        test "$words[$number]" = "$wanted[$number]"; or return 1
    end
    not contains -- -- $words
end

# Whether a command path is all that stands before the cursor.
function __execdrv_after
    __execdrv_at $argv; and test (count (commandline -opc)) -eq (math (count $argv) + 1)
end

complete -c execdrv -f
"""


def make_fish(commands: list[Command]) -> str:
    """A completion script for fish."""
    lines = [_FISH]
    lines += [_fish_line("__execdrv_after", f"-a {one.name}", one.text) for one in commands]
    for path, command in flatten(commands):
        at = f"__execdrv_at {path}"
        lines += [
            _fish_line(f"__execdrv_after {path}", f"-a {child.name}", child.text)
            for child in command.children
        ]
        lines += [_fish_option(at, option) for option in command.options]
        if command.values:
            lines.append(_fish_line(at, _fish_values(command.values), ""))
    return "\n".join(lines) + "\n"


def _fish_option(condition: str, option: Option) -> str:
    parts = [f"-l {option.flags[-1].removeprefix('--')}"]
    parts += [f"-s {flag[1:]}" for flag in option.flags[:-1]]
    if option.takes_value:
        parts.append("-r" if option.values == "files" else "-x")
        if option.values:
            parts.append(_fish_values(option.values))
    return _fish_line(condition, " ".join(parts), option.text)


def _fish_values(values: Values) -> str:
    if not isinstance(values, str):
        return f"-a {_fish_quote(' '.join(values))}"
    match values:
        case "files":
            return "-F"
        case "directories":
            return "-a '(__fish_complete_directories)'"
        case "command":
            return "-F -a '(__fish_complete_command)'"
    return f"-a '({_ASK[values]} 2>/dev/null)'"


def _fish_line(condition: str, what: str, text: str) -> str:
    described = f" -d {_fish_quote(text)}" if text else ""
    return f"complete -c execdrv -n {_fish_quote(condition)} {what}{described}"


def _fish_quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
