import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { isatty } from 'node:tty';
import { Worker } from 'node:worker_threads';
import { dieOf } from './die.ts';
import { fail } from './fail.ts';
import { errorOf } from './failure.ts';
import { print } from './output.ts';
import { showProgress } from './progress.ts';
import { table } from './table.ts';
import { TransferControl, type Order, type TransferMessage, type TransferOrder } from './transfer-control.ts';
import type { StreamOrder, StreamResult, TransferResult } from './transfer-control.ts';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** `save` or `restore`, with its result on stdout and all else on stderr. A signal ends it when all is in order again. */
export async function transfer(order: Omit<TransferOrder, 'control'>, json: boolean): Promise<void> {
  const result = await carriedOut(order, json);
  if (result?.command === 'save' || result?.command === 'restore') {
    print(json ? `${JSON.stringify(result)}\n` : inWords(result));
  }
}

/** Has an order carried out in a thread of its own, with what there is to say on stderr. `undefined` if a signal ends the process. */
export async function carriedOut(
  order: Omit<TransferOrder, 'control'> | Omit<StreamOrder, 'control'>,
  json: boolean,
): Promise<TransferResult | StreamResult | undefined> {
  const control = new TransferControl();
  const progress = showProgress(control, isatty(2) ? process.stderr : undefined);
  let temporary: string | undefined;
  let received: NodeJS.Signals | undefined;
  const onSignal = (signal: NodeJS.Signals): void => {
    if (received !== undefined) {
      progress.stop();
      if (temporary !== undefined) rmSync(temporary, { force: true });
      endBy(signal); // the second time at once: the driver hangs, or the user will not wait
    }
    received = signal;
    control.interrupt();
  };
  for (const signal of SIGNALS) process.on(signal, onSignal);
  try {
    const result = await inThread({ ...order, control: control.memory }, (message) => {
      if (message.kind === 'temporary') temporary = message.path;
      else if (message.kind === 'note') progress.note(`vfio-shim: ${message.text}\n`);
    });
    progress.stop();
    return result;
  } catch (error) {
    progress.stop();
    if (temporary !== undefined) rmSync(temporary, { force: true }); // if not even the thread's own end removed it
    if (received === undefined) throw error;
    fail(error, json);
    endBy(received);
    return undefined;
  } finally {
    for (const signal of SIGNALS) process.off(signal, onSignal);
  }
}

function endBy(signal: NodeJS.Signals): void {
  for (const each of SIGNALS) process.removeAllListeners(each);
  dieOf(signal);
}

/** Runs an order in a thread of its own, and settles when that has ended: by then all its files are closed. */
async function inThread(
  order: Order,
  tell: (message: TransferMessage) => void,
): Promise<TransferResult | StreamResult> {
  const worker = new Worker(join(import.meta.dirname, 'transfer-worker.js'), { workerData: order });
  let last: TransferMessage | undefined;
  worker.on('message', (message: TransferMessage) => {
    last = message;
    tell(message);
  });
  await new Promise<void>((resolve, reject) => {
    worker.once('error', reject);
    worker.once('exit', () => resolve());
  });
  if (last?.kind === 'done') return last.result;
  throw last?.kind === 'failed'
    ? errorOf(last.failure)
    : new Error(`${order.command}: its thread ended without a word`);
}

function inWords(result: TransferResult): string {
  const { device, protocol, file, bytes, buffers, seconds, mibPerSecond, sha256, states, guestSha256 } = result;
  return table([
    ['device', `${device}, ${protocol}`],
    ['file', file],
    ['data', `${bytes} bytes in ${buffers} buffers`],
    ['time', `${seconds} s, ${mibPerSecond} MiB/s`],
    ['states', states.join(' ')],
    ['sha256', sha256],
    ['guest memory', guestSha256 === undefined ? undefined : `sha256 ${guestSha256}`],
  ]);
}
