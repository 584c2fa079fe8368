import { dayOf, type Product } from '../product.ts';
import type { ArgumentDefinition, Definition, Definitions } from './definitions.ts';

/** The pages of the manual, in man(7), by the names of their files. */
export function manPages(definitions: Definitions, product: Product): ReadonlyMap<string, string> {
  const names = definitions.commands.map(({ name }) => `vfio-shim-${name}`);
  const pages = definitions.commands.map(
    (command) => [`vfio-shim-${command.name}.1`, commandPage(command, names, product)] as const,
  );
  return new Map([['vfio-shim.1', mainPage(definitions, names, product)], ...pages]);
}

function mainPage({ program, commands }: Definitions, pages: readonly string[], product: Product): string {
  return page('vfio-shim', product, [
    section('NAME', [roff(`vfio-shim - ${lowerCased(program.description)}`)]),
    section('SYNOPSIS', ['.B vfio\\-shim', '[\\fIoptions\\fR] \\fIcommand\\fR ...']),
    section(
      'COMMANDS',
      commands.flatMap(({ name, description }) => ['.TP', `.BR vfio\\-shim\\-${name} (1)`, roff(description)]),
    ),
    optionSection(program),
    ...moreSections(program.more),
    seeAlso(pages),
  ]);
}

function commandPage(command: Definition, pages: readonly string[], product: Product): string {
  const name = `vfio-shim-${command.name}`;
  return page(name, product, [
    section('NAME', [roff(`${name} - ${command.description}`)]),
    section('SYNOPSIS', [
      `.B vfio\\-shim ${command.name}`,
      ['[\\fIoptions\\fR]', ...command.arguments.map(synopsis)].join(' '),
    ]),
    section(
      'ARGUMENTS',
      command.arguments.flatMap(({ name: term, description }) => ['.TP', `.I ${roff(term)}`, roff(description)]),
    ),
    optionSection(command),
    ...moreSections(command.more),
    seeAlso(['vfio-shim', ...pages.filter((other) => other !== name)]),
  ]);
}

function page(name: string, product: Product, sections: readonly string[]): string {
  const title = [
    roff(name.toUpperCase()),
    '1',
    dayOf(product),
    `"${roff(`${product.name} ${product.version}`)}"`,
    '"User Commands"',
  ];
  return ['.\\" Made from the definitions that --help is made from.', `.TH ${title.join(' ')}`, ...sections, '']
    .filter((text, n, all) => text !== '' || n === all.length - 1)
    .join('\n');
}

/** A section, or nothing if it is empty. */
function section(title: string, lines: readonly string[]): string {
  return lines.length === 0 ? '' : [`.SH ${title}`, ...lines].join('\n');
}

function optionSection({ options }: Definition): string {
  return section(
    'OPTIONS',
    options.flatMap(({ term, text }) => ['.TP', optionTerm(term), roff(text)]),
  );
}

/** `-v, --verbose` in bold, `<file>` in italics. */
function optionTerm(term: string): string {
  const [names = '', value] = term.split(/ (?=[<[])/);
  const bold = names.split(', ').map((name) => `\\fB${roff(name)}\\fR`);
  return [bold.join(', '), ...(value === undefined ? [] : [`\\fI${roff(value.slice(1, -1))}\\fR`])].join(' ');
}

function synopsis({ name, required, variadic }: ArgumentDefinition): string {
  const text = `\\fI${roff(name)}\\fR${variadic ? ' ...' : ''}`;
  return required ? text : `[${text}]`;
}

/** What the help says below the options: paragraphs, tables as they are, examples in a section of their own. */
function moreSections(more: string): string[] {
  const paragraphs = more.split(/\n{2,}/).filter((paragraph) => paragraph !== '');
  const isExample = (paragraph: string): boolean => /^Examples?:\n/.test(paragraph);
  const notes = paragraphs.filter((paragraph) => !isExample(paragraph));
  const examples = paragraphs.filter(isExample).map((paragraph) => paragraph.slice(paragraph.indexOf('\n') + 1));
  return [
    section(
      'NOTES',
      notes
        .flatMap((text) => ['.PP', text.includes('\n  ') ? asItIs(text) : roff(text.replaceAll('\n', ' '))])
        .slice(1),
    ),
    section('EXAMPLES', examples.map(asItIs)),
  ];
}

function asItIs(text: string): string {
  return ['.nf', ...text.split('\n').map(roff), '.fi'].join('\n');
}

function seeAlso(pages: readonly string[]): string {
  return section(
    'SEE ALSO',
    pages.map((name, n) => `.BR ${roff(name)} (1)${n === pages.length - 1 ? '' : ','}`),
  );
}

function lowerCased(text: string): string {
  return `${text.charAt(0).toLowerCase()}${text.slice(1)}`;
}

/** Text that roff prints as it is: no requests, no escapes, hyphens that can be searched for. */
function roff(text: string): string {
  const escaped = text.replaceAll('\\', '\\e').replaceAll('-', '\\-').replaceAll("'", '\\(aq').replaceAll('"', '\\(dq');
  return escaped.replaceAll(/^(?=[.'])/gm, '\\&');
}
