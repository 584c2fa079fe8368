import { EmulatedService } from '../vfio-user/emulated/emulated-service.ts';
import { onFile } from '../state-file/errors.ts';
import { SocketFile } from '../sys/socket-file.ts';
import { serve, type ServeOptions, type Service } from '../vfio-user/server/serve.ts';
import { logger } from './logs.ts';
import { say } from './output.ts';
import { planServed, type ServeOrder } from './serve.ts';

/** Serves until this process is to end. */
export function carryOutServe({ device, listen, timeout, stop }: ServeOrder & { readonly stop: number }): void {
  const emulated = new EmulatedService(planServed(device), (why) => say(`vfio-shim: ${why}\n`));
  listenAndServe(listen, emulated, { timeout, stop: { fd: stop, heeded: true } });
}

/** Has a service listen at a path: once it does, that is said. */
export function listenAndServe(path: string, what: Service, options: Omit<ServeOptions, 'log'>): void {
  const file = onFile(path, () => new SocketFile(path));
  try {
    say(`vfio-shim: listening at ${path}\n`);
    serve(file, what, { ...options, log: logger('vfio-user') });
  } finally {
    file.close();
  }
}
