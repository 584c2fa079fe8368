import { ProxyService } from '../vfio-user/proxy/proxy-service.ts';
import { say } from './output.ts';
import type { ProxyOrder } from './proxy.ts';
import { listenAndServe } from './serve-steps.ts';

/** Stands between clients and a server until this process is to end. */
export function carryOutProxy(order: ProxyOrder & { readonly stop: number }): void {
  const stop = { fd: order.stop, heeded: true };
  const warn = (why: string): void => say(`vfio-shim: ${why}\n`);
  listenAndServe(order.listen, new ProxyService({ ...order, server: order.connect, stop, warn }), {
    timeout: order.timeout,
    stop,
  });
}
