import { PassThrough } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { showProgress } from '../../src/cli/progress.ts';
import { TransferControl } from '../../src/cli/transfer-control.ts';
import { poll } from '../real/wait.ts';

const MIB = 2 ** 20;

/** A stream that is a terminal, or not, and what was written to it. */
function stream(isTTY: boolean): { stream: NodeJS.WriteStream; text: () => string } {
  let text = '';
  const pass = Object.assign(new PassThrough(), { isTTY, columns: 80 });
  pass.setEncoding('utf8').on('data', (piece: string) => (text += piece));
  return { stream: pass as unknown as NodeJS.WriteStream, text: () => text };
}

describe('showProgress', () => {
  it('draws a bar on a terminal, and takes it away', async () => {
    const terminal = stream(true);
    const control = new TransferControl();
    const progress = showProgress('save', control, terminal.stream);
    control.checking = true;
    await sleep(150);
    expect(terminal.text()).toBe('');
    control.total = 8 * MIB;
    control.done = 2 * MIB;
    const checking = (): boolean => /check file \S+ 25% \| 2 of 8 MiB/.test(terminal.text());
    await poll(
      () => checking() || undefined,
      5000,
      () => terminal.text(),
    );
    control.checking = false;
    await poll(
      () => (/save \S+ 25% \| 2 of 8 MiB/.test(terminal.text()) ? true : undefined),
      5000,
      () => terminal.text(),
    );
    control.done = 16 * MIB; // more than was expected
    await poll(
      () => (terminal.text().includes('100% | 16 of 16 MiB') ? true : undefined),
      5000,
      () => terminal.text(),
    );
    progress.note('a note\n');
    progress.stop();
    expect(terminal.text()).toContain('\r\u001B[Ka note\n');
    const before = terminal.text();
    await sleep(250);
    expect(terminal.text()).toBe(before);
  });

  it('is silent elsewhere, notes excepted', async () => {
    const pipe = stream(false);
    const progress = showProgress('save', new TransferControl(), pipe.stream);
    progress.note('a note\n');
    await sleep(150);
    progress.stop();
    expect(pipe.text()).toBe('a note\n');
  });
});

describe('TransferControl', () => {
  it('is the same to both threads', () => {
    const mine = new TransferControl();
    const theirs = new TransferControl(mine.memory);
    expect([theirs.interrupted, theirs.done, theirs.total]).toEqual([false, 0, 0]);
    mine.interrupt();
    mine.total = 2 ** 40 + 1;
    mine.done = 7;
    mine.checking = true;
    expect([theirs.interrupted, theirs.done, theirs.total, theirs.checking]).toEqual([true, 7, 2 ** 40 + 1, true]);
  });
});
