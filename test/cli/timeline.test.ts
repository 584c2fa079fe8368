import { mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { requireCli } from '../../tools/vmm/cli.ts';
import { because, lacksForRun } from '../support/host.ts';
import { cli, ended, FAILED, OK, runCli, USAGE } from '../support/cli-run.ts';
import { root } from '../docs/documents.ts';
import { elementsOf, textsOf } from '../timeline/markup.ts';
import { patient } from '../support/patience.ts';

describe('vfio-shim timeline', { timeout: patient(120_000) }, () => {
  const directory = mkdtempSync(join(tmpdir(), 'vfio-shim-timeline-'));
  const files = ['source', 'destination'].map((end) => join(directory, `${end}.jsonl`));
  beforeAll(() => {
    requireCli();
    for (const file of files) {
      const name = `qemu-7.2-mlx5-4m-${file.slice(directory.length + 1)}.gz`;
      writeFileSync(file, gunzipSync(readFileSync(join(root, 'test/vectors', name))));
    }
  });
  afterAll(() => rmSync(directory, { recursive: true }));
  const path = (name: string): string => join(directory, name);

  it('draws what QEMU 7.2 has done, in each format', async () => {
    for (const name of ['x.svg', 'x.html', 'x.json']) {
      expect(await runCli(['timeline', ...files, '-o', path(name)])).toEqual({ exit: OK, stdout: '', stderr: '' });
      expect(statSync(path(name)).mode & 0o777).toBe(0o600);
    }
    expect(readFileSync(path('x.svg'), 'utf8')).toBe(readFileSync(join(root, 'docs/timeline.svg'), 'utf8'));
    expect(elementsOf(readFileSync(path('x.svg'), 'utf8')).length).toBeGreaterThan(30);
    expect(readFileSync(path('x.html'), 'utf8')).toContain('5 MiB of migration data; downtime ');
    const { traceEvents } = JSON.parse(readFileSync(path('x.json'), 'utf8')) as {
      traceEvents: { name: string; dur?: number }[];
    };
    const accesses = files
      .flatMap((file) => readFileSync(file, 'utf8').split('\n'))
      .filter((line) => line.includes('"kind":"access"'));
    expect(accesses.length).toBeGreaterThan(100);
    expect(traceEvents.filter(({ name }) => name === 'downtime')).toHaveLength(1);
    expect(traceEvents.filter(({ dur }) => dur !== undefined).length).toBeGreaterThan(accesses.length);
  });

  it('draws in the terminal, without colours if it is none', async () => {
    const { exit, stdout, stderr } = await runCli(['timeline', ...files]);
    expect({ exit, stderr }).toEqual({ exit: OK, stderr: '' });
    expect(stdout).toMatch(/^ +VMM, v1 R+P+C+S+$/m);
    expect(stdout).toMatch(/^ +driver, v2 R+L+R+$/m);
    expect(stdout).not.toContain('\u001B');
    expect((await runCli(['timeline', '--all', ...files])).stdout).toMatch(/^ +VMM, v1 +R+P+C+S+$/m);
  });

  it('draws a recording that was cut to its end', async () => {
    const cut = path('cut.jsonl');
    const whole = readFileSync(files[0] ?? '');
    writeFileSync(cut, whole.subarray(0, whole.length - 700));
    const { exit, stdout } = await runCli(['timeline', '--all', cut]);
    expect(exit).toEqual(OK);
    expect(stdout).toMatch(/X at .*: the recording is cut in line \d+/);
  });

  it('replaces no file, and leaves none if a recording is damaged', async () => {
    writeFileSync(path('there.svg'), 'mine');
    expect((await runCli(['timeline', ...files, '-o', path('there.svg')])).exit).toEqual(FAILED);
    expect(readFileSync(path('there.svg'), 'utf8')).toBe('mine');
    expect((await runCli(['timeline', ...files, '-o', path('there.svg'), '--force'])).exit).toEqual(OK);
    const bad = path('bad.jsonl');
    writeFileSync(
      bad,
      `${readFileSync(files[0] ?? '', 'utf8')
        .split('\n', 3)
        .join('\n')}\n{"kind":"none"}\n`,
    );
    const before = readdirSync(directory);
    const { exit, stderr } = await runCli(['timeline', bad, '-o', path('bad.json')]);
    expect(exit).toEqual(FAILED);
    expect(stderr).toMatch(/^vfio-shim: .*bad\.jsonl: recording: line 4: .* \[ERR_FILE_CORRUPT, EINVAL\]\n$/);
    expect(readdirSync(directory)).toEqual(before);
  });

  it.each([
    [['-o', 'x.png'], '--output x.png: ends with none of .svg, .html, .json [ERR_ARGUMENT]'],
    [['-o', '-'], '--output: file "-": a file gets its name when it is complete'],
  ])('%j is refused', async (args, why) => {
    const { exit, stderr } = await runCli(['timeline', ...files, ...args]);
    expect(exit).toEqual(USAGE);
    expect(stderr).toContain(why);
  });
});

describe('vfio-shim fsm, as a picture', () => {
  beforeAll(requireCli);

  it('is mermaid or dot, of v2 or v1', async () => {
    expect((await runCli(['fsm', '--mermaid'])).stdout).toMatch(
      /^stateDiagram-v2\n[^]* {2}RUNNING --> RUNNING_P2P: P2P\n/,
    );
    expect((await runCli(['fsm', '--mermaid', '--v1'])).stdout).toContain('  RUNNING --> PRE_COPY: 3\n');
    expect((await runCli(['fsm', '--dot', '--flags', '1'])).stdout).toMatch(
      /^digraph "v2" \{\n[^]* {2}RUNNING -> STOP;\n/,
    );
  });

  it.each([[['--v1']], [['running', '--dot']]])('%j is refused', async (args) => {
    expect((await runCli(['fsm', ...args])).stderr).toMatch(/^vfio-shim: fsm .*\[ERR_ARGUMENT\]\n$/);
  });
});

const lacking = lacksForRun();

describe.skipIf(lacking !== undefined)(`demo --svg${because(lacking)}`, { timeout: patient(120_000) }, () => {
  const directory = mkdtempSync(join(tmpdir(), 'vfio-shim-demo-svg-'));
  afterAll(() => rmSync(directory, { recursive: true }));
  beforeAll(requireCli);

  it("draws both ends of the demo's own migration, and replaces no file", async () => {
    const svg = join(directory, 'demo.svg');
    const { exit, stderr } = await ended(cli(['demo', '--no-qemu', '--json', '--svg', svg]), 100_000);
    expect({ exit, stderr }).toEqual({ exit: OK, stderr: '' });
    const texts = textsOf(readFileSync(svg, 'utf8'));
    expect(texts.filter((text) => /^(source|destination): /.test(text)).length).toBeGreaterThanOrEqual(2);
    expect(texts.filter((text) => text.startsWith('downtime ')).length).toBeGreaterThan(0);
    const before = readFileSync(svg, 'utf8');
    const again = await runCli(['demo', '--no-qemu', '--svg', svg]);
    expect(again.exit).toEqual(FAILED);
    expect(again.stdout).toBe(''); // it is told before anything is begun
    expect(readFileSync(svg, 'utf8')).toBe(before);
  });
});
