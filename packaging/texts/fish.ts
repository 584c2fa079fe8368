import type { Definition, Definitions, OptionDefinition, Values } from './definitions.ts';

/** Completion for fish. */
export function fishCompletion({ program, commands }: Definitions): string {
  const names = commands.map(({ name }) => name).join(' ');
  return `# fish completion for vfio-shim, made from the definitions that --help is made from

# The command and its arguments that run starts, behind --
function __vfio_shim_target
    set -l tokens (commandline -opc)
    set -l at (contains -i -- -- $tokens)
    or return 1
    set -e tokens[1..$at]
    complete -C (string join ' ' -- (string escape -- $tokens) (commandline -ct))
end

# Whether it is the turn of an argument by its number: COMMAND NUMBER [OPTION-WITH-VALUE...]
function __vfio_shim_argument
    set -l tokens (commandline -opc)
    contains -- $argv[1] $tokens
    or return 1
    set -l given -1
    set -l is_value no
    for token in $tokens[2..-1]
        if test $is_value = yes
            set is_value no
        else if contains -- $token $argv[3..-1]
            set is_value yes
        else if not string match -q -- '-*' $token
            set given (math $given + 1)
        end
    end
    test $given -eq $argv[2]
end

function __vfio_shim_behind_dashes
    contains -- -- (commandline -opc)
end

complete -c vfio-shim -f
${program.options.map((option) => complete(`'not __fish_seen_subcommand_from ${names}'`, option)).join('\n')}
${commands.map(({ name, description }) => `complete -c vfio-shim -n 'not __fish_seen_subcommand_from ${names}' -a ${name} -d ${quoted(description)}`).join('\n')}
${commands.flatMap(linesOf).join('\n')}
`;
}

function linesOf({ name, options, arguments: list }: Definition): string[] {
  const condition = `'__fish_seen_subcommand_from ${name}; and not __vfio_shim_behind_dashes'`;
  const valued = options
    .filter(({ value }) => value !== undefined)
    .flatMap(({ short, long }) => [short ?? [], long].flat());
  const positions = list.map(({ values }, n) =>
    values.kind === 'command'
      ? `complete -c vfio-shim -n '__fish_seen_subcommand_from ${name}; and __vfio_shim_behind_dashes' -a '(__vfio_shim_target)'`
      : `complete -c vfio-shim -n '__vfio_shim_argument ${[name, n, ...valued].join(' ')}' ${valuesOf(values)}`,
  );
  return [...options.map((option) => complete(condition, option)), ...positions];
}

function complete(condition: string, { short, long, description, value }: OptionDefinition): string {
  const names = [...(short === undefined ? [] : [`-s ${short.slice(1)}`]), `-l ${long.slice(2)}`];
  const takes = value === undefined ? [] : ['-r', valuesOf(value.values)];
  return ['complete -c vfio-shim', `-n ${condition}`, ...names, ...takes, `-d ${quoted(description)}`].join(' ');
}

function valuesOf(values: Values): string {
  switch (values.kind) {
    case 'words':
      return `-f -a ${quoted(values.words.join(' '))}`;
    case 'file':
      return '-F';
    case 'directory':
      return "-f -a '(__fish_complete_directories)'";
    case 'command':
      return "-f -a '(__fish_complete_command)'";
    case 'unknown':
      return '-f';
  }
}

function quoted(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
}
