import { createServer } from 'node:net';

/** Somebody who takes whatever a migration sends and does nothing with it. Needs no program, so it works in any sandbox. */
export async function startSink(path: string): Promise<Disposable & { readonly uri: string }> {
  const server = createServer((socket) => socket.on('error', () => {}).resume());
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(path, resolve));
  return { uri: `unix:${path}`, [Symbol.dispose]: () => void server.close() };
}
