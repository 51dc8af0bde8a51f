"""`completion`: scripts for bash, zsh and fish, and the command that they ask for candidates."""

from __future__ import annotations

from teu.cli.grammar import Command
from teu.cli.session import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from teu.cli.grammar import Options
    from teu.cli.session import Session

# Candidates come as lines `word<TAB>description`; a lone `:files` asks for file names instead.
_BASH = r"""# bash completion for PROGRAM; load it with: source <(PROGRAM completion bash)
_PROGRAM_complete() {
    local line="${COMP_LINE:0:COMP_POINT}" current="${COMP_WORDS[COMP_CWORD]}"
    local whole="${line##*[[:space:]]}" answer candidate
    # Bash cuts words at : and = and replaces only the last piece.
    local prefix="${whole%"$current"}"
    COMPREPLY=()
    while IFS=$'\t' read -r candidate _; do
        if [[ $candidate == :files ]]; then
            compopt -o filenames 2>/dev/null
            while IFS= read -r answer; do COMPREPLY+=("$answer"); done \
                < <(compgen -f -- "$current")
        elif [[ $candidate == *= || $candidate == *: || $candidate == */ ]]; then
            compopt -o nospace 2>/dev/null
            COMPREPLY+=("${candidate#"$prefix"}")
        elif [[ -n $candidate ]]; then
            COMPREPLY+=("${candidate#"$prefix"}")
        fi
    done < <(PROGRAM __complete -- "$line" 2>/dev/null)
}
complete -F _PROGRAM_complete PROGRAM
"""
_ZSH = r"""#compdef PROGRAM
# zsh completion for PROGRAM; load it with: source <(PROGRAM completion zsh)
_PROGRAM() {
    local -a candidates
    local word text
    while IFS=$'\t' read -r word text; do
        if [[ $word == :files ]]; then
            _files
        elif [[ -n $word ]]; then
            candidates+=("${word//:/\\:}:${text}")
        fi
    done < <(PROGRAM __complete -- "${(j: :)words[1,CURRENT]}" 2>/dev/null)
    (( ${#candidates} )) && _describe -t PROGRAM 'PROGRAM' candidates
}
compdef _PROGRAM PROGRAM
"""
_FISH = r"""# fish completion for PROGRAM; load it with: PROGRAM completion fish | source
function __PROGRAM_complete
    set -l lines (PROGRAM __complete -- (commandline -cp) 2>/dev/null)
    for line in $lines
        if test "$line" = ":files"
            __fish_complete_path (commandline -ct)
        else
            echo $line
        end
    end
end
complete -c PROGRAM -f -a '(__PROGRAM_complete)'
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def _completion(session: Session, _options: Options, arguments: list[str]) -> int:
    script = _SCRIPTS.get(arguments[0])
    if script is None:
        raise Failure(f"unknown shell {arguments[0]!r}: give one of {', '.join(_SCRIPTS)}")
    session.out(script.replace("PROGRAM", session.program))
    return 0


def _complete(session: Session, _options: Options, arguments: list[str]) -> int:
    from teu.cli.complete import candidates

    for word, text in candidates(session, arguments[0]):
        session.out(f"{word}\t{text}\n" if text else f"{word}\n")
    return 0


COMMANDS = {
    "completion": Command(
        _completion,
        "bash|zsh|fish",
        args=(1, 1),
        long="""Print the script that completes commands, flags and names in your shell.

For this session:  source <(teu completion bash)
For all to come:   teu completion bash | sudo tee /etc/bash_completion.d/teu""",
    ),
    "__complete": Command(_complete, "LINE", args=(1, 1)),
}
