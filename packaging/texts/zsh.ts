import type { ArgumentDefinition, Definition, Definitions, OptionDefinition, Values } from './definitions.ts';

/** Completion for zsh: a function that it finds by its name. */
export function zshCompletion({ program, commands }: Definitions): string {
  const described = commands.map(
    ({ name, description }) => `      ${quoted(`${name}:${description.replaceAll(':', '\\:')}`)}`,
  );
  return `#compdef vfio-shim
# zsh completion for vfio-shim, made from the definitions that --help is made from

_vfio-shim() {
  local curcontext=$curcontext state line
  local -a subcommands # "commands" is of zsh, which needs it behind --
  typeset -A opt_args
  _arguments -C \\
${program.options.map((option) => `    ${optionSpec(option, '(- *)')} \\\n`).join('')}    '1: :->command' \\
    '*:: :->arguments' && return
  case $state in
    command)
      subcommands=(
${described.join('\n')}
      )
      _describe -t commands command subcommands
      ;;
    arguments)
      curcontext=\${curcontext%:*}-$words[1]:
      case $words[1] in
${commands.map(commandCase).join('\n')}
      esac
      ;;
  esac
}

_vfio-shim "$@"
`;
}

function commandCase({ name, options, arguments: list }: Definition): string {
  const specs = [...options.map((option) => optionSpec(option)), ...list.flatMap(argumentSpecs)];
  return `        ${name}) _arguments -S \\\n${specs.map((spec) => `          ${spec}`).join(' \\\n')} ;;`;
}

/** `excludes`: what does not go with an option: with one that only shows something, nothing does. */
function optionSpec({ short, long, description, value, repeats }: OptionDefinition, excludes?: string): string {
  const text = `[${description.replaceAll(/[\\\][]/g, '\\$&')}]`;
  const action = value === undefined ? '' : `:${message(value.name)}:${actionOf(value.values)}`;
  const names = short === undefined ? [long] : [short, long];
  const only = long === '--help' ? '(- *)' : (excludes ?? (names.length > 1 ? `(${names.join(' ')})` : ''));
  const equals = value === undefined || !long.startsWith('--') ? '' : '=';
  const spec = (name: string): string =>
    quoted(`${repeats ? '*' : only}${name}${name === long ? equals : ''}${text}${action}`);
  return names.map(spec).join(' ');
}

function argumentSpecs({ name, required, variadic, values }: ArgumentDefinition, n: number): string[] {
  if (values.kind === 'command') return [quoted('(-)1: :_command_names -e'), quoted('*::arguments:_normal')];
  const position = variadic ? '*' : String(n + 1);
  return [quoted(`${position}:${required ? '' : ':'}${message(name)}:${actionOf(values)}`)];
}

function message(text: string): string {
  return text.replaceAll(':', '\\:');
}

function actionOf(values: Values): string {
  switch (values.kind) {
    case 'words':
      return `(${values.words.map((word) => word.replaceAll(':', '\\:')).join(' ')})`;
    case 'file':
      return '_files';
    case 'directory':
      return '_files -/';
    case 'command':
      return '_command_names -e';
    case 'unknown':
      return ' ';
  }
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
