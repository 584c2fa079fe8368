import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { ShimError } from '../error.ts';
import { createEventFd, type OwnedFd } from '../sys/fd.ts';
import { syscall, withAddress } from '../sys/libc.ts';
import { dieOf } from './die.ts';
import { errorOf, type Failure } from './failure.ts';
import type { ProxyOrder } from './proxy.ts';
import type { ServeOrder } from './serve.ts';

/** What a thread is to serve. `stop`: a descriptor that is readable once the process is to end. */
export type ServiceOrder = (ServeOrder | ProxyOrder) & { readonly stop: number };

/** The thread's last message: nothing, or why it has failed. */
export interface ServiceEnd {
  readonly failure: Failure | undefined;
}

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/**
 * Serves until a signal comes, and the device is in order again. In a thread of its own: it blocks as devices do, and the main thread sees
 * signals meanwhile. A second signal ends the process at once.
 */
export async function service(order: ServeOrder | ProxyOrder): Promise<void> {
  using stop = createEventFd();
  let isEnding = false;
  const onSignal = (signal: NodeJS.Signals): void => {
    if (isEnding) dieOf(signal);
    isEnding = true;
    raise(stop);
  };
  for (const signal of SIGNALS) process.on(signal, onSignal);
  try {
    await inThread({ ...order, stop: stop.number });
  } finally {
    for (const signal of SIGNALS) process.off(signal, onSignal);
  }
}

function raise(stop: OwnedFd): void {
  const one = BigUint64Array.of(1n);
  withAddress(one, (at) => syscall('end the service', 'write', stop.number, at, one.byteLength));
}

async function inThread(order: ServiceOrder): Promise<void> {
  const worker = new Worker(join(import.meta.dirname, 'service-worker.js'), { workerData: order });
  let end: ServiceEnd | undefined;
  worker.on('message', (message: ServiceEnd) => {
    end = message;
  });
  await new Promise<void>((resolve, reject) => {
    worker.once('error', reject);
    worker.once('exit', () => resolve());
  });
  if (end === undefined) throw new Error(`${order.command}: its thread ended without a word`);
  if (end.failure !== undefined) throw errorOf(end.failure);
}

/** How long a peer may take, of an option in seconds: milliseconds. Throws `ERR_ARGUMENT`. */
export function timeoutOf(text: string): number {
  const seconds = /^\d+(\.\d+)?$/.test(text) ? Number(text) : 0;
  if (seconds > 0 && seconds <= 86_400) return seconds * 1000;
  throw new ShimError('ERR_ARGUMENT', `--timeout ${text}: is no number of seconds up to 86400`);
}
