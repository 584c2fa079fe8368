import { mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { within } from '../../src/vmm/deadline.ts';
import { qemuBinary, type QemuVersion } from '../../tools/vmm/binaries.ts';
import { CLI, requireCli } from '../../tools/vmm/cli.ts';
import { codeBlocks, documents, root } from '../docs/documents.ts';
import { patient } from '../support/patience.ts';
import { useTestBed } from './bed.ts';
import { describeWithQemus } from './requirements.ts';

const TIMEOUT = patient(120_000);

interface Job {
  /** GitHub's. */
  readonly steps?: readonly { readonly run?: string }[];
  /** GitLab's. */
  readonly before_script?: readonly string[];
  readonly script?: readonly string[];
}

const page = documents.find(({ path }) => path === 'docs/ci.md')?.text ?? '';
const [github, gitlab] = codeBlocks(page, 'yaml').map((text) => parse(text) as Record<string, unknown>);

/** What a job runs once the package is there, which packaging/test sees to. */
function commandsOf({ steps, before_script: before = [], script = [] }: Job): {
  install: string[];
  commands: string[];
} {
  const all = [...(steps ?? []).flatMap(({ run }) => run ?? []), ...before, ...script];
  const isInstall = (command: string): boolean => /\bapt-get\b|\bcurl\b/.test(command);
  return { install: all.filter(isInstall), commands: all.filter((command) => !isInstall(command)) };
}

const jobs: readonly (readonly [string, Job])[] = [
  ['GitHub Actions', (github?.['jobs'] as Record<string, Job> | undefined)?.['vfio'] ?? {}],
  ['GitLab', (gitlab?.['vfio'] as Job | undefined) ?? {}],
];

describe('the jobs of docs/ci.md', () => {
  it.each(jobs)('%s: install what the package needs, then try the machine, then test', (_, job) => {
    const { install, commands } = commandsOf(job);
    expect(install.join('\n')).toMatch(
      /vfio-shim_0\.1\.0-1_amd64\.deb[^]*qemu-system-x86 \.\/vfio-shim_0\.1\.0-1_amd64\.deb/,
    );
    expect(commands).toEqual([
      'vfio-shim doctor',
      expect.stringMatching(/^vfio-shim run --device .* -- bash .*\/ci\.sh$/),
    ]);
  });
});

describeWithQemus(['7.2', '10.0'], 'the jobs of docs/ci.md, run', () => {
  const bed = useTestBed();

  async function runs(qemu: QemuVersion, job: Job): Promise<void> {
    requireCli();
    const [bin, work] = [bed().path('bin'), bed().path('work')];
    for (const directory of [bin, work, bed().path('tmp')]) mkdirSync(directory);
    symlinkSync(CLI, join(bin, 'vfio-shim'));
    const { commands } = commandsOf(job);
    for (const command of commands) {
      const here = command.replace('/usr/share/doc/vfio-shim/examples', join(root, 'examples'));
      const env = [`PATH=${bin}:${process.env['PATH']}`, `TMPDIR=${bed().path('tmp')}`, `QEMU=${qemuBinary(qemu)}`];
      const child = bed().spawn(['env', '-C', work, ...env, 'bash', '-ec', here]);
      const end = await within(child.exited, TIMEOUT, () => `${here}\n${child.stdout}${child.stderr}`);
      expect(end, `${here}\n${child.stdout}${child.stderr}`).toEqual({ code: 0, signal: null });
      if (command === commands.at(-1))
        expect(child.stdout).toMatch(/^The VM was saved with its device \(\d{8} bytes\), and runs again\.$/m);
    }
  }

  it.each(jobs)('%s, with QEMU 7.2', { timeout: TIMEOUT }, (_, job) => runs('7.2', job));
  it.each(jobs)('%s, with QEMU 10.0', { timeout: TIMEOUT }, (_, job) => runs('10.0', job));
});
