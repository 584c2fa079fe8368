import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { showProgress } from '../../src/cli/progress.ts';
import { TransferControl } from '../../src/cli/transfer-control.ts';
import { carryOut } from '../../src/cli/transfer-steps.ts';
import { ci } from '../../tools/vmm/binaries.ts';
import { Child, killHard } from '../../src/vmm/child.ts';
import { poll } from '../../src/vmm/deadline.ts';
import { CLI, requireCli } from '../../tools/vmm/cli.ts';
import { because } from '../support/host.ts';
import { patient } from '../support/patience.ts';

const MIB = 2 ** 20;

/** A stream that is a terminal, and what was written to it. */
function terminal(): { stream: NodeJS.WriteStream; text: () => string } {
  let text = '';
  const pass = Object.assign(new PassThrough(), { isTTY: true, columns: 80 });
  pass.setEncoding('utf8').on('data', (piece: string) => (text += piece));
  return { stream: pass as unknown as NodeJS.WriteStream, text: () => text };
}

describe('showProgress', () => {
  it('shows what is done from the beginning, whether or not it is known how much there is', async () => {
    const { stream, text } = terminal();
    const control = new TransferControl();
    const progress = showProgress(control, stream);
    const shown = async (what: RegExp): Promise<void> => {
      await poll(
        () => (what.test(text()) ? true : undefined),
        10_000,
        () => `${what}: ${text()}`,
      );
    };
    await shown(/open device [|/\\-]/);
    control.begin('check file', 8 * MIB);
    control.done = 2 * MIB;
    await shown(/check file █{10}░{30} 25% \| 2 of 8 MiB/);
    control.begin('save');
    await shown(/save [|/\\-]/);
    control.done = 3.5 * MIB;
    await shown(/save [|/\\-] 3\.5 MiB so far/);
    control.total = 7 * MIB;
    await shown(/save █{20}░{20} 50% \| 3\.5 of 7 MiB/);
    control.done = 16 * MIB; // more than was expected
    await shown(/save █{40} 100% \| 16 of 16 MiB/);
    control.begin('sync file');
    await shown(/sync file \|/); // it turns, all the way round
    await shown(/sync file \//);
    await shown(/sync file -/);
    await shown(/sync file \\/);
    progress.stop();
    const before = text();
    control.begin('hash memory');
    await sleep(250); // a line that comes all the same comes every 100 ms
    expect(text()).toBe(before);
  });

  it('goes on where the terminal is gone', async () => {
    const { stream } = terminal();
    const progress = showProgress(new TransferControl(), stream);
    const closed = new Promise<void>((resolve) => stream.once('close', resolve));
    stream.destroy(new Error('EIO'));
    await closed;
    progress.stop();
  });
});

describe('TransferControl', () => {
  it('is the same to both threads', () => {
    const mine = new TransferControl();
    const theirs = new TransferControl(mine.memory);
    expect([theirs.interrupted, theirs.step, theirs.done, theirs.total]).toEqual([false, 'open device', 0, 0]);
    mine.interrupt();
    mine.begin('restore', 2 ** 40 + 1);
    mine.done = 7;
    expect([theirs.interrupted, theirs.step, theirs.done, theirs.total]).toEqual([true, 'restore', 7, 2 ** 40 + 1]);
    mine.begin('sync file');
    expect([theirs.step, theirs.done, theirs.total]).toEqual(['sync file', 0, 0]);
  });
});

describe('the steps that a terminal shows', () => {
  let directory = '';
  beforeAll(() => (directory = mkdtempSync(join(tmpdir(), 'vfio-shim-progress-'))));
  afterAll(() => rmSync(directory, { recursive: true }));

  /** What the command does, as it tells the thread that shows it. */
  function stepsOf(command: 'save' | 'restore', device: string): string[] {
    const begin = vi.spyOn(TransferControl.prototype, 'begin');
    try {
      const file = join(directory, 'state');
      const control = new TransferControl().memory;
      carryOut(
        { command, device, file, force: true, verbose: false, recording: { recordLimit: '256M' }, control },
        () => {},
      );
      return begin.mock.calls.map(([step, total]) => `${step} ${total ?? '?'}`);
    } finally {
      begin.mockRestore();
    }
  }

  it('go on after the last byte', () => {
    expect(stepsOf('save', 'sim:qat')).toEqual(['save ?', 'sync file ?', 'hash memory ?']);
    expect(stepsOf('restore', 'sim:qat')).toEqual([
      'check file 65568',
      'open device ?',
      'restore 65568',
      'hash memory ?',
    ]);
  });
});

const script = spawnSync('script', ['--version']);
const noTerminal = script.status === 0 ? undefined : `script: ${script.error?.message ?? `exit code ${script.status}`}`;

it.skipIf(noTerminal !== undefined && !ci)(
  `a terminal shows a save from its beginning${because(noTerminal)}`,
  { timeout: patient(90_000) },
  async () => {
    requireCli();
    const directory = mkdtempSync(join(tmpdir(), 'vfio-shim-terminal-'));
    try {
      // a device whose data is never there: the command waits
      const save = `'${process.execPath}' '${CLI}' save sim:qat,size=4M,block=4000000000 '${directory}/state'`;
      const child = new Child(['script', '-qec', save, '/dev/null']);
      onTestFinished(() => {
        if (child.exit === undefined) killHard(child.pid ?? -1);
      });
      const shown = async (text: RegExp): Promise<void> => {
        await poll(
          () => (text.test(child.stdout) ? true : undefined),
          20_000,
          () => `${text}: ${JSON.stringify(child.stdout)} ${child.stderr}`,
        );
      };
      await shown(/open device [|/\\-]/); // the first line that is drawn; which sign it is depends on the time
      await shown(/save ░{40} 0% \| 0 of 4 MiB/);
      process.kill(child.pid ?? -1, 'SIGTERM'); // it hangs up
      await child.exited;
      await poll(() => (readdirSync(directory).length === 0 ? true : undefined), 20_000, 'the unfinished file is gone');
    } finally {
      rmSync(directory, { recursive: true });
    }
  },
);
