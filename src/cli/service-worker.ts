import { parentPort, workerData } from 'node:worker_threads';
import { failureOf, type Failure } from './failure.ts';
import { useLogs } from './logs.ts';
import { carryOutProxy } from './proxy-steps.ts';
import { carryOutServe } from './serve-steps.ts';
import type { ServiceEnd, ServiceOrder } from './service.ts';

/** The thread that serves: it blocks as devices do, and signals have to be seen meanwhile. */
const order = workerData as ServiceOrder;
useLogs(order.verbose);
const end: ServiceEnd = { failure: failureIn() };
// oxlint-disable-next-line unicorn/require-post-message-target-origin -- a port within this process has no origin
parentPort?.postMessage(end);

function failureIn(): Failure | undefined {
  try {
    if (order.command === 'serve') carryOutServe(order);
    else carryOutProxy(order);
    return undefined;
  } catch (error) {
    return failureOf(error);
  }
}
