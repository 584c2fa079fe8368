// Makes the pictures of the documents with the package itself, as it is in dist/: the state machines, of their tables, and a timeline, of
// recordings of a migration of QEMU 7.2. --check only says what is not up to date.
import { readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { readRecording } from '../dist/recording/index.js';
import { machineV1, machineV2, mermaidOf, readTimeline, svgOf } from '../dist/timeline/index.js';
import { fill, put } from './lib/fill.mjs';

process.chdir(dirname(dirname(fileURLToPath(import.meta.url))));
const by = { what: 'src/timeline draws', command: 'npm run pictures', isCheck: process.argv.includes('--check') };

const ends = ['source', 'destination'].map((end) => readFileSync(`test/vectors/qemu-7.2-mlx5-4m-${end}.jsonl.gz`));
put('docs/timeline.svg', svgOf(readTimeline(ends.map((file) => readRecording([gunzipSync(file)])))), by);

for (const machine of [machineV1(), machineV2()]) {
  const begin = `<!-- the states of ${machine.protocol}, made by npm run pictures -->`;
  fill('docs/protocols.md', begin, '<!-- end of states -->', `\`\`\`mermaid\n${mermaidOf(machine)}\`\`\``, by);
}
