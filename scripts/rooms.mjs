// rooms.json says which rooms of src/ each room may import, all of them above it; `beside` is the files beside the rooms. This makes
// of it the rules about imports in .oxlintrc.json and the picture in docs/architecture.md. --check only says what is not up to date.
import { readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { fill } from './lib/fill.mjs';

process.chdir(dirname(dirname(fileURLToPath(import.meta.url))));
const rooms = JSON.parse(readFileSync('rooms.json', 'utf8'));
const names = Object.keys(rooms);
for (const [n, name] of names.entries()) {
  const wrong = rooms[name].find((other) => !names.slice(0, n).includes(other));
  if (wrong !== undefined) throw new Error(`rooms.json: ${name} imports ${wrong}, which does not stand above it`);
}
const BESIDE = 'beside';

const isRoom = (name) => name !== BESIDE && !name.endsWith('.ts');
const filesOf = (name) => (name === BESIDE ? 'src/*.ts' : isRoom(name) ? `src/${name}/**` : `src/${name}`);
/** The folder that holds several rooms, of which this is one; a room of src has none. */
const houseOf = (name) => (name.includes('/') ? name.slice(0, name.indexOf('/') + 1) : '');

/** What a specifier of a module there has behind its dots, as a regular expression; rooms of one folder name each other without it. */
function moduleIn(name, from) {
  if (name === BESIDE) return '[^/]+$';
  if (!isRoom(name)) return `${name.replace('.', '[.]')}$`;
  const house = houseOf(name);
  return house !== '' && house === houseOf(from) ? `(${house})?${name.slice(house.length)}/` : `${name}/`;
}

/** The rule for one room: all that its row does not name is refused. */
function rule(name) {
  const others = names.filter((other) => other !== name && !rooms[name].includes(other));
  const refused = others.map((other) => moduleIn(other, name));
  const regex = `^${isRoom(name) ? '([.]{2}/)+' : '[.]/'}(${refused.join('|')})`;
  const row = rooms[name].join(', ') || 'nothing';
  const patterns = [{ regex, message: `${filesOf(name)} may import: ${row} (rooms.json).` }];
  const paths = name === 'sys' ? [] : [{ name: 'koffi', message: 'Only src/sys talks to libc.' }];
  return { files: [filesOf(name)], rules: { 'no-restricted-imports': ['error', { paths, patterns }] } };
}

/** What a room may import and does not reach by way of another room that it may import. */
function arrows(name) {
  const reaches = (from, to) => rooms[from].some((next) => next === to || reaches(next, to));
  return rooms[name].filter((other) => !rooms[name].some((between) => reaches(between, other)));
}

/** A room in the picture: mermaid takes no slash in a name. */
const node = (name) => (name.includes('/') ? `${name.replace('/', '_')}[${name}]` : name);

function picture() {
  const sources = new Map();
  for (const name of names.toReversed()) {
    const targets = arrows(name).map(node).join(' & ');
    if (targets !== '') sources.set(targets, [...(sources.get(targets) ?? []), name]);
  }
  const lines = Array.from(sources, ([targets, from]) => `  ${from.map(node).join(' & ')} --> ${targets}`);
  return ['```mermaid', 'flowchart LR', ...lines, '```'].join('\n');
}

const isCheck = process.argv.includes('--check');
const by = { what: 'rooms.json says', command: 'npm run rooms', isCheck };
const rules = names.map((name) => JSON.stringify(rule(name))).join(',\n');
fill('.oxlintrc.json', '// made of rooms.json by npm run rooms', '// end of rooms', rules, by);
fill('docs/architecture.md', '<!-- made of rooms.json by npm run rooms -->', '<!-- end of rooms -->', picture(), by);
