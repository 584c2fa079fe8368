// The command's programs, made of src/.
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { buildSync } from 'esbuild';
import { licencesText } from './licences.mjs';

/** A program, and the module of src/ where it begins. */
const PROGRAMS = {
  main: 'cli/main.ts',
  'run-main': 'cli/run-main.ts',
  'commands-main': 'cli/commands-main.ts',
  'transfer-worker': 'cli/transfer-worker.ts',
  'service-worker': 'cli/service-worker.ts',
  'attempts-main': 'doctor/attempts-main.ts',
  'keeper-main': 'interpose/process/keeper-main.ts',
  'supervisor-main': 'interpose/process/supervisor-main.ts',
  'vmm-main': 'demo/vmm/main.ts',
};

/**
 * How a program gets koffi, which is native: from npm's package, or as a library that lies beside the program. Of the packages
 * that neither `run` nor its keeper and supervisor load, npm brings those of its package; otherwise they are in the programs.
 */
const KOFFI = {
  package: { external: ['koffi', 'cli-progress', 'debug'] },
  beside: { external: ['./koffi.node'], alias: { koffi: './koffi.node' } },
};

/**
 * Makes the programs, each in one file with all that it needs, as every module that Node loads costs a start about a
 * millisecond. They are CommonJS, as `package.json` beside them says: Node's loader of ES modules costs a start twenty more. What
 * `import()` names is in the same file, and runs when it is reached. A process has one of these programs, and so one of each class.
 * @param {string} directory
 * @param {{ koffi: keyof typeof KOFFI, source?: string }} options `source`: the checkout, if it is not the working directory
 * @returns {string[]} the packages that are in them, as paths from the checkout
 */
export function bundleCommand(directory, { koffi }) {
  const { version } = JSON.parse(readFileSync('package.json', 'utf8'));
  const { metafile } = buildSync({
    entryPoints: Object.fromEntries(Object.entries(PROGRAMS).map(([name, module]) => [name, `src/${module}`])),
    outdir: directory,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    target: 'node18.19',
    ...KOFFI[koffi],
    define: {
      'import.meta.dirname': '__dirname',
      'import.meta.filename': '__filename',
      VERSION: JSON.stringify(version),
    },
    metafile: true,
    logLevel: 'warning',
  });
  const packages = packagesOf(Object.keys(metafile.inputs));
  writeFileSync(join(directory, 'package.json'), '{ "type": "commonjs" }\n');
  writeFileSync(join(directory, 'LICENSES'), licencesText(packages));
  chmodSync(join(directory, 'main.js'), 0o755);
  return packages;
}

/** The directories of the packages that files are of. */
function packagesOf(inputs) {
  return [
    ...new Set(inputs.flatMap((input) => /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/.exec(input)?.[0] ?? [])),
  ];
}
