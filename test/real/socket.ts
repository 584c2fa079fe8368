import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/** Connects to a UNIX socket that a process just started is about to open. `gone` says why it never will. */
export async function connectWhenReady(path: string, ms: number, gone: () => string | undefined): Promise<Socket> {
  const end = Date.now() + ms;
  for (;;) {
    try {
      return await connectOnce(path);
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code ?? '';
      if (!['ENOENT', 'ECONNREFUSED'].includes(code)) throw error;
      const why = gone();
      if (why !== undefined) throw new Error(`cannot connect to ${path}: ${why}`, { cause: error });
      if (Date.now() >= end) throw new Error(`cannot connect to ${path} within ${ms} ms: ${code}`, { cause: error });
      await sleep(10);
    }
  }
}

function connectOnce(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.off('error', reject);
      resolve(socket);
    });
  });
}

/** Calls `online` for every complete line, and `onend` once with the reason when the connection is over. */
export function readLines(socket: Socket, online: (line: string) => void, onend: (reason: string) => void): void {
  let pieces: string[] = [];
  let reason = 'the peer closed the connection';
  socket.setEncoding('utf8');
  socket.on('data', (chunk: string) => {
    const lines = chunk.split('\n');
    const rest = lines.pop() ?? '';
    for (const line of lines) {
      pieces.push(line);
      const whole = pieces.join('').trim();
      pieces = [];
      if (whole !== '') online(whole);
    }
    pieces.push(rest);
  });
  socket.on('error', (error) => (reason = error.message));
  socket.on('close', () => onend(reason));
}
