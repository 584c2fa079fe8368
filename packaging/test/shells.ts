import { expect } from 'vitest';
import type { CleanRoot } from './clean-root.ts';

/** What each shell offers behind a line, by the completions that are installed in a root. */
export const SHELLS: Readonly<Record<string, (clean: CleanRoot, line: string) => string[]>> = {
  bash: (clean, line) => {
    // readline takes words apart at these
    const words: string[] = line.match(/[:=]|[^\s:=]+/g) ?? [];
    if (line.endsWith(' ')) words.push('');
    return printed(clean, ['bash', '-c', BASH, 'bash', line, ...words]);
  },
  zsh: (clean, line) => printed(clean, ['zsh', '-f', '-c', ZSH, 'zsh', line]),
  fish: (clean, line) => printed(clean, ['fish', '-c', 'complete -C $argv[1]', line]),
};

/** Where shells keep what they remember; it is not looked at. */
const HOME = { HOME: '/var/log' };

function printed(clean: CleanRoot, command: readonly string[]): string[] {
  const { status, stdout, stderr } = clean.run(command, HOME);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  const lines = stdout.split('\n').map((line) => line.replace(/\t.*/, '')); // a description
  return [...new Set(lines)].filter((line) => line !== '').toSorted();
}

/** Calls the function that bash would call. */
const BASH = `
. /usr/share/bash-completion/completions/vfio-shim
COMP_LINE=$1 COMP_POINT=\${#1}
COMP_WORDS=("\${@:2}") COMP_CWORD=$(($# - 2))
_vfio_shim vfio-shim "\${COMP_WORDS[-1]}" "\${COMP_WORDS[-2]}"
printf '%s\\n' "\${COMPREPLY[@]}"
`;

/** Types the line and a tab into a zsh on a terminal of its own, whose compadd prints what it is given. */
const ZSH = `
zmodload zsh/zpty
zpty shell zsh -f -i
read-until() {
  local text all=
  while [[ $all != *$1* ]]; do zpty -r shell text || exit 3; all+=$text; done
  REPLY=$all
}
zpty -w shell 'PROMPT= RPROMPT=; unsetopt zle_bracketed_paste 2>/dev/null; stty -echo 2>/dev/null; autoload -Uz compinit; compinit -u -D
zstyle ":completion:*" list-grouped no; LISTMAX=10000
null-line() { print -n "\\e[K"; BUFFER=; zle accept-line }
compadd() {
  if [[ "\${(j: :)@[1,(i)(-|--)]}" == *-(O|A|D)\\ * ]]; then builtin compadd "$@"; return; fi
  local -a hits; builtin compadd -A hits "$@"; print -l "" "hit:"\${^hits}; return 1
}
ended() { print "all""-there" }
complete-all() { zle complete-word; ended }
zle -C complete-word complete-word _main_complete; zle -N complete-all; bindkey "^I" complete-all; print rea"dy"'
read-until ready
zpty -w -n shell "$1"$'\\t'
read-until all-there
print -l -- \${\${(M)\${(f)REPLY}:#hit:*}#hit:} | tr -d '\\r'
`;
