import { parentPort, workerData } from 'node:worker_threads';
import { failureOf } from './failure.ts';
import { useLogs } from './logs.ts';
import { carryOutStream } from './stream-steps.ts';
import type { Order, TransferMessage } from './transfer-control.ts';
import { carryOut } from './transfer-steps.ts';

/** The thread that moves a state, or reads a file: both block as system calls do, and signals have to be seen meanwhile. */
const order = workerData as Order;
// oxlint-disable-next-line unicorn/require-post-message-target-origin -- a port within this process has no origin
const tell = (message: TransferMessage): void => parentPort?.postMessage(message);

useLogs(order.verbose);
try {
  tell({ kind: 'done', result: order.command === 'stream' ? carryOutStream(order, tell) : carryOut(order, tell) });
} catch (error) {
  tell({ kind: 'failed', failure: failureOf(error) });
}
