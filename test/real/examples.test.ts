import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import type { Child } from '../../src/vmm/child.ts';
import { within } from '../../src/vmm/deadline.ts';
import { ci, qemuBinary } from '../../tools/vmm/binaries.ts';
import { CLI, requireCli } from '../../tools/vmm/cli.ts';
import type { TestBed } from '../../tools/vmm/test-bed.ts';
import { codeBlocks, documents, root } from '../docs/documents.ts';
import { examples, onHardware, type Example } from '../docs/scripts.ts';
import { useTestBed } from './bed.ts';
import { describeWithQemus } from './requirements.ts';
import { inShort } from '../support/runs.ts';
import { patient } from '../support/patience.ts';

const TIMEOUT = patient(180_000);

/** What differs from run to run. */
function withoutNumbers(printed: string): string {
  return printed
    .replaceAll(/"(trappedCalls|buffersOut|buffersIn)":\d+/g, '"$1":N')
    .replaceAll(/\b\d+ ms\b/g, 'N ms')
    .replaceAll(/\b\d+\.\d (s|MiB)\b/g, 'N $1')
    .replaceAll(/\b\d+ MiB\/s/g, 'N MiB/s')
    .replaceAll(/\b(QEMU \d+\.\d+)\.\d+/g, '$1.N')
    .replaceAll(/sha256 [0-9a-f]{64}/g, 'sha256 H');
}

interface Start {
  /** Directories before those of PATH. */
  readonly path?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/** Starts a command where the checkout is, with the QEMUs of the tests and a directory for temporary files of its own. */
function start(bed: TestBed, command: readonly string[], { path = [], env = {} }: Start = {}): Child {
  requireCli();
  const bin = bed.path('bin');
  mkdirSync(bin, { recursive: true });
  mkdirSync(bed.path('tmp'), { recursive: true });
  symlinkSync(CLI, join(bin, 'vfio-shim'));
  symlinkSync(which(qemuBinary('7.2')), join(bin, 'qemu-system-x86_64'));
  const given = {
    TMPDIR: bed.path('tmp'),
    PATH: [...path, bin, process.env['PATH']].join(':'),
    ...env,
  };
  const settings = Object.entries(given).map(([name, value]) => `${name}=${value}`);
  return bed.spawn(['env', '-C', root, ...settings, ...command]);
}

function which(program: string): string {
  return spawnSync('sh', ['-c', 'command -v "$0"', program], { encoding: 'utf8' }).stdout.trim();
}

const qemu10 = (): Record<string, string> => ({ QEMU10: qemuBinary('10.0') });

function end(child: Child): Promise<unknown> {
  return within(child.exited, TIMEOUT, () => `${child.command.join(' ')}\n${child.stdout}${child.stderr}`);
}

/** Files and processes that a command has left behind. */
function leftBehind(bed: TestBed): string[] {
  const alive = bed.processes().filter(({ commandLine }) => !/(keeper|supervisor)-main/.test(commandLine));
  return [...readdirSync(bed.path('tmp')), ...alive.map(({ commandLine }) => commandLine)];
}

function example(name: string): Example {
  const found = examples.find(({ path }) => path === `examples/${name}.sh`);
  if (found === undefined) throw new Error(`no examples/${name}.sh`);
  return found;
}

/** Two ways to run what a document shows: the script, and what is copied from the document into a shell. */
const ways: readonly (readonly [way: string, command: (each: Example) => readonly string[]])[] = [
  ['as a script', ({ path }) => ['bash', path]],
  ['copied from the document', ({ shown }) => ['bash', '-c', shown]],
];

describeWithQemus(['7.2', '10.0'], 'examples', () => {
  const bed = useTestBed();

  async function expectPrints(command: readonly string[], printed: string | undefined): Promise<void> {
    const child = start(bed(), command, { env: qemu10() });
    expect(await end(child), child.stderr).toEqual({ code: 0, signal: null });
    expect(withoutNumbers(child.stdout)).toBe(withoutNumbers(String(printed)));
    expect(leftBehind(bed())).toEqual([]);
  }

  it.each(inShort(ways, (_, n) => n === 1))(
    'save-and-load %s: the second device has the first one’s memory',
    { timeout: TIMEOUT },
    (_, command) => {
      const shown = example('save-and-load');
      return expectPrints(command(shown), shown.printed);
    },
  );

  it.each(inShort(ways, (_, n) => n === 1))(
    'evacuate %s: QEMU 10.0 has the device of QEMU 7.2',
    { timeout: TIMEOUT },
    (_, command) => {
      const shown = example('evacuate');
      return expectPrints(command(shown), shown.printed);
    },
  );

  const noImages = which('qemu-img') === '' ? ' (skipped, no qemu-img: install qemu-utils)' : '';
  it.skipIf(noImages !== '' && !ci).each(inShort(ways, (_, n) => n === 1))(
    `snapshot %s: a VM starts with the device of its snapshot${noImages}`,
    { timeout: TIMEOUT },
    (_, command) => {
      const shown = example('snapshot');
      return expectPrints(command(shown), shown.printed);
    },
  );

  const faults = [
    ['save-and-load', 'x-enable-migration=on', 'x-enable-migration=off', "VFIO device doesn't support migration"],
    ['save-and-load', 'exec:cat', 'exec:head -c 100000', 'load of migration failed'],
    ['evacuate', 'x-enable-migration=on', 'x-enable-migration=off', "VFIO device doesn't support migration"],
  ] as const;
  it.each(inShort(faults, (_, n) => n === 1))(
    '%s with %s as %s fails, says why, and leaves nothing',
    { timeout: TIMEOUT },
    async (name, from, to, why) => {
      const broken = bed().path('broken');
      mkdirSync(broken);
      const qemu = join(broken, 'qemu-system-x86_64');
      writeFileSync(qemu, `#!/bin/bash\nexec ${which(qemuBinary('7.2'))} "\${@/${from}/${to}}"\n`);
      chmodSync(qemu, 0o755);
      const child = start(bed(), ['bash', `examples/${name}.sh`], { path: [broken], env: qemu10() });
      expect(await end(child)).toMatchObject({ signal: null });
      expect(child.exit?.code).not.toBe(0);
      expect(child.stderr).toContain(why);
      expect(child.stderr).toMatch(new RegExp(`examples/${name}\\.sh: failed with status \\d+`));
      expect(leftBehind(bed())).toEqual([]);
    },
  );

  it.each(inShort(ways, (_, n) => n === 1))(
    'vfio-user %s: an old client saves a device of a new server',
    { timeout: TIMEOUT },
    (_, command) => {
      const shown = example('vfio-user');
      return expectPrints(command(shown), shown.printed);
    },
  );

  it.each(examples.filter(({ shown }) => shown.includes('The devices differ.')))(
    '$path copied from the document does not succeed where nothing runs',
    { timeout: TIMEOUT },
    async ({ shown }) => {
      const broken = bed().path('broken');
      mkdirSync(broken);
      for (const program of ['npx', 'qemu-img'])
        writeFileSync(join(broken, program), '#!/bin/sh\nexit 1\n', { mode: 0o755 });
      const child = start(bed(), ['bash', '-c', shown.replace(/^rm -r .*\n/m, '')], { path: [broken], env: qemu10() });
      expect(await end(child)).toEqual({ code: 1, signal: null });
      expect(child.stderr).toContain('The devices differ.');
      expect(child.stdout).toBe('');
    },
  );
});

describeWithQemus(['7.2', '10.0'], 'what the documents show of hosts and of the demo', () => {
  const bed = useTestBed();

  /** A directory in which `qemu-system-x86_64` is a QEMU that speaks what is presented, if it is not the old one. */
  function qemuFor(code: string): string[] {
    if (!code.includes('--present v2')) return [];
    const path = bed().path('new');
    mkdirSync(path);
    symlinkSync(which(qemuBinary('10.0')), join(path, 'qemu-system-x86_64'));
    return [path];
  }

  it.each(onHardware)(
    '$path: a command fails for want of the hardware only',
    { timeout: TIMEOUT },
    async ({ code }) => {
      const child = start(bed(), ['bash', '-c', code], { path: qemuFor(code) });
      expect(await end(child)).toEqual({ code: 1, signal: null });
      // a QEMU that was fetched says so of modules for the display that it would open
      const complaint = /^qemu-system-x86_64: (?!failed to initialize module)/;
      const complaints = child.stderr.split('\n').filter((line) => complaint.test(line));
      expect(complaints).toEqual([expect.stringMatching(/: vfio \S*0000:01:00\.1: no such host device: /)]);
      expect(child.stderr).not.toContain('vfio-shim:');
    },
  );

  it('README.md: the demo ends with what is shown', { timeout: TIMEOUT }, async () => {
    const text = documents.find(({ path }) => path === 'README.md')?.text ?? '';
    const [shown = ''] = codeBlocks(text, 'text');
    expect(shown).toMatch(/^Proved\n/);
    const child = start(bed(), ['vfio-shim', 'demo']);
    expect(await end(child), child.stderr).toEqual({ code: 0, signal: null });
    expect(withoutNumbers(child.stdout.slice(child.stdout.indexOf('Proved\n')))).toBe(withoutNumbers(shown));
  });
});
