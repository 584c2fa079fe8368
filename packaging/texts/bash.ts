import type { Definition, Definitions, OptionDefinition, Values } from './definitions.ts';

/** Completion for bash, which needs no other package. */
export function bashCompletion({ program, commands }: Definitions): string {
  const all = [{ ...program, name: '' }, ...commands];
  const valued = all.flatMap(({ name, options }) =>
    options.flatMap((option) => (option.value === undefined ? [] : [[name, option, option.value.values] as const])),
  );
  return `# bash completion for vfio-shim, made from the definitions that --help is made from

# Whether an option of a command takes a value: COMMAND OPTION
_vfio_shim_takes_value() {
  case "$1 $2" in
    ${valued
      .map(([command, option]) =>
        namesOf(option)
          .map((name) => `'${command} ${name}'`)
          .join('|'),
      )
      .join('|')}) return 0 ;;
  esac
  return 1
}

# Completes the value of an option, or an argument by its number: COMMAND OPTION|NUMBER BEGINNING
_vfio_shim_value() {
  case "$1 $2" in
${valued
  .map(
    ([command, option, values]) =>
      `    ${namesOf(option)
        .map((name) => `'${command} ${name}'`)
        .join('|')}) ${candidates(values)} ;;`,
  )
  .join('\n')}
${all.flatMap(argumentCases).join('\n')}
  esac
}

_vfio_shim_options() {
  case "$1" in
${all.map(({ name, options }) => `    '${name}') echo '${options.flatMap(namesOf).join(' ')}' ;;`).join('\n')}
  esac
}

# Completes the command that run starts, whose first word is COMP_WORDS[$1]
_vfio_shim_target() {
  if declare -F _command_offset >/dev/null; then
    _command_offset "$1"
  elif ((COMP_CWORD == $1)); then
    mapfile -t COMPREPLY < <(compgen -c -- "\${COMP_WORDS[COMP_CWORD]}")
  else
    compopt -o default 2>/dev/null
  fi
}

_vfio_shim() {
  COMPREPLY=()
  local line=\${COMP_LINE:0:COMP_POINT} current command='' option='' number=0 n word
  local -a words
  # bash has taken words apart at : and =, which are parts of ours
  read -ra words <<<"$line"
  current=\${line##*[[:space:]]}
  [[ -z $current ]] || unset 'words[-1]'
  for ((n = 1; n < \${#words[@]}; n++)); do
    word=\${words[n]}
    if [[ -n $option ]]; then
      option=''
    elif [[ $word == -- || ($command == run && $word != -*) ]]; then
      [[ $command == run ]] || return
      for ((n = 0; n < COMP_CWORD; n++)); do
        [[ \${COMP_WORDS[n]} != "$word" ]] || break
      done
      [[ $word != -- ]] || ((n++))
      _vfio_shim_target "$n"
      return
    elif _vfio_shim_takes_value "$command" "$word"; then
      option=$word
    elif [[ $word == -* ]]; then
      :
    elif [[ -z $command ]]; then
      command=$word
    else
      ((number++))
    fi
  done
  if [[ -z $option && $current == --*=* ]]; then
    option=\${current%%=*}
    _vfio_shim_value "$command" "$option" "\${current#*=}"
    [[ $COMP_WORDBREAKS == *=* ]] || COMPREPLY=("\${COMPREPLY[@]/#/$option=}")
  elif [[ -n $option ]]; then
    _vfio_shim_value "$command" "$option" "$current"
  elif [[ $current == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$(_vfio_shim_options "$command")" -- "$current")
  elif [[ $command == run ]]; then
    _vfio_shim_target "$COMP_CWORD"
  elif [[ -z $command ]]; then
    mapfile -t COMPREPLY < <(compgen -W '${commands.map(({ name }) => name).join(' ')}' -- "$current")
  else
    _vfio_shim_value "$command" "$number" "$current"
  fi
  # what stands before the last colon is another word to bash
  if [[ $current == *:* && $COMP_WORDBREAKS == *:* ]]; then
    COMPREPLY=("\${COMPREPLY[@]#"\${current%"\${current##*:}"}"}")
  fi
}

complete -F _vfio_shim vfio-shim
`;
}

function namesOf({ short, long }: OptionDefinition): string[] {
  return short === undefined ? [long] : [short, long];
}

function argumentCases({ name, arguments: list }: Definition): string[] {
  return list.map(({ values }, n) => `    '${name} ${n}') ${candidates(values)} ;;`);
}

/** The command that puts what begins with $3 into COMPREPLY. */
function candidates(values: Values): string {
  const fill = (how: string): string => `mapfile -t COMPREPLY < <(compgen ${how} -- "$3")`;
  switch (values.kind) {
    case 'words':
      return fill(`-W '${values.words.join(' ')}'`);
    case 'file':
      return `compopt -o filenames 2>/dev/null; ${fill('-f')}`;
    case 'directory':
      return `compopt -o filenames 2>/dev/null; ${fill('-d')}`;
    case 'command':
      return fill('-c');
    case 'unknown':
      return ':';
  }
}
