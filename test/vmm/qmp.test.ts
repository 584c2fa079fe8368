import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { readLines } from '../../src/vmm/lines.ts';
import { QmpClient, QmpError } from '../../src/vmm/qmp.ts';

const GREETING = '{"QMP": {"version": {}, "capabilities": []}}\r\n';
const MS = 20_000;

interface Request {
  readonly execute: string;
  readonly id: number;
}

let directory: string;
let server: Server;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'vfio-shim-'));
});
afterEach(() => {
  server.close();
  rmSync(directory, { recursive: true });
});

/** A client of a monitor that answers with `answer`. */
async function open(answer: (request: Request, monitor: Socket) => void): Promise<QmpClient> {
  const path = join(directory, 'qmp');
  server = createServer((monitor) => {
    monitor.write(GREETING);
    readLines(monitor, (line) => {
      const request = JSON.parse(line) as Request;
      if (request.execute === 'qmp_capabilities') monitor.write(`{"return": {}, "id": ${request.id}}\r\n`);
      else answer(request, monitor);
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return QmpClient.open(connect(path), MS, () => '; its last words: oh no');
}

it('gives each command its own answer, in whatever order they come', async () => {
  const waiting: Request[] = [];
  const client = await open((request, monitor) => {
    waiting.unshift(request);
    if (waiting.length < 2) return;
    for (const { execute, id } of waiting) monitor.write(`{"return": "${execute}", "id": ${id}}\r\n`);
  });
  expect(await Promise.all([client.execute('first'), client.execute('second')])).toEqual(['first', 'second']);
  client.close();
});

it('tells a refusal in QEMU’s words', async () => {
  const client = await open(({ id }, monitor) =>
    monitor.write(`{"error": {"class": "GenericError", "desc": "not now"}, "id": ${id}}\r\n`),
  );
  const refusal = client.execute('migrate');
  await expect(refusal).rejects.toBeInstanceOf(QmpError);
  await expect(refusal).rejects.toMatchObject({ code: 'ERR_TARGET', message: 'QMP migrate: not now (GenericError)' });
  client.close();
});

it('finds an event by its name and data, whether it comes before one waits or later', async () => {
  const client = await open(({ execute, id }, monitor) => {
    monitor.write(`{"event": "MIGRATION", "data": {"status": "${execute}"}, "timestamp": {}}\r\n`);
    monitor.write(`{"return": {}, "id": ${id}}\r\n`);
  });
  const find = (wanted: string): Promise<unknown> =>
    client.waitForEvent('MIGRATION', { where: ({ status }) => status === wanted });
  const later = find('completed');
  await client.execute('active');
  expect(await find('active')).toEqual({ event: 'MIGRATION', data: { status: 'active' } });
  await client.execute('completed');
  expect(await later).toEqual({ event: 'MIGRATION', data: { status: 'completed' } });
  client.close();
});

it('fails what waits when the connection ends, and what comes later, with QEMU’s last words', async () => {
  const client = await open((_, monitor) => monitor.destroy());
  const event = client.waitForEvent('STOP');
  const why = 'the peer closed the connection; its last words: oh no';
  await expect(client.execute('stop')).rejects.toThrow(`QMP stop: ${why}`);
  await expect(event).rejects.toThrow(`QMP event STOP; saw : ${why}`);
  await expect(client.execute('cont')).rejects.toThrow(`QMP cont: ${why}`);
  expect(client.ended).toBe('the peer closed the connection');
});
