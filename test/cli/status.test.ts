import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { askStatus } from '../../src/cli/status-client.ts';
import { lineOf, tableOf } from '../../src/cli/status-text.ts';
import { lineShower } from '../../src/cli/status.ts';
import type { Status } from '../../src/interpose/process/status.ts';
import { Child } from '../../src/vmm/child.ts';
import { ci } from '../../tools/vmm/binaries.ts';
import { CLI, requireCli } from '../../tools/vmm/cli.ts';
import { cli, ended, FAILED, OK, runCli, USAGE } from '../support/cli-run.ts';
import { because } from '../support/host.ts';
import { codeBlocks, documents } from '../docs/documents.ts';

const document = documents.find(({ path }) => path === 'docs/status.md')?.text ?? '';
const [shown = '', followed = ''] = codeBlocks(document, 'text');
const answer = (): Status => JSON.parse(codeBlocks(document, 'json')[0] ?? '') as Status;
const [device] = answer().devices;
if (device === undefined) throw new Error('docs/status.md shows no device');

const unknown: Status = {
  ...answer(),
  takeovers: 2,
  devices: [
    {
      ...device,
      name: 'a\u001B[2J\nb',
      state: null,
      phase: null,
      bytesDone: null,
      bytesLeft: null,
      bytesPerSecond: null,
      stopCopyBytes: null,
      downtimeMs: null,
      dirtyBytesPerSecond: null,
    },
  ],
};

describe('what status prints', () => {
  it('is what docs/status.md says', () => {
    expect(tableOf(answer())).toBe(shown);
    expect(`${lineOf(answer())}\n`).toBe(followed);
  });

  it('has - for what is not known, and nothing that a terminal heeds', () => {
    const [, row = '', takeovers] = tableOf(unknown).split('\n');
    expect(row.split(/ +/)).toEqual(['a?[2J?b', 'v2', '-', '-', '-', '-', '-', '-', '-']);
    expect(takeovers).toBe('Supervisors that died and were succeeded: 2');
    expect(lineOf(unknown)).toBe('a?[2J?b -');
    expect(tableOf({ ...answer(), devices: [] })).toBe('No device so far.\n');
    expect(lineOf({ ...answer(), devices: [] })).toBe('no device so far');
    expect(lineOf({ ...answer(), devices: [device, device] })).toBe([lineOf(answer()), lineOf(answer())].join('; '));
  });

  it('is one line in a terminal, which never goes on in the next, and elsewhere a line that differs', () => {
    const narrow = lineShower({ isTTY: true, columns: 20 });
    expect([narrow(answer()), narrow(answer())]).toEqual(Array(2).fill('\r\u001B[K0000:01:00.0 PRE_CO'));
    expect(lineShower({ isTTY: true })(answer())).toBe(`\r\u001B[K${lineOf(answer())}`);
    const elsewhere = lineShower({});
    expect([answer(), answer(), unknown].map(elsewhere)).toEqual([followed, '', `${lineOf(unknown)}\n`]);
  });
});

describe('status', () => {
  let directory = '';
  let server: Server | undefined;
  const clients = new Set<Socket>();
  beforeAll(requireCli);
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'shim-status-'));
  });
  afterEach(async () => {
    for (const client of clients) client.destroy();
    clients.clear();
    await new Promise((resolve) => (server?.listening === true ? server.close(resolve) : resolve(undefined)));
    server = undefined;
    rmSync(directory, { recursive: true });
  });
  const socket = (): string => join(directory, 'socket');

  /** What stands for a run: does one thing after the other with who connects, then ends. */
  async function serve(...answers: readonly ((client: Socket) => void)[]): Promise<void> {
    let next = 0;
    const listening = createServer((client) => {
      clients.add(client);
      client.on('error', () => {});
      answers[next]?.(client);
      next += 1;
      if (next === answers.length) listening.close();
    });
    server = listening;
    await new Promise<void>((resolve) => listening.listen(socket(), resolve));
  }
  const says =
    (text: string) =>
    (client: Socket): void => {
      client.end(text);
    };
  const line = (status: Status): string => `${JSON.stringify(status)}\n`;

  it('prints the answer as a table, or as JSON', async () => {
    await serve(says(line(answer())), says(line(answer())));
    expect(await runCli(['status', socket()])).toEqual({ exit: OK, stdout: shown, stderr: '' });
    expect(await runCli(['status', socket(), '--json'])).toEqual({ exit: OK, stdout: line(answer()), stderr: '' });
  });

  it('--follow goes on until nobody listens, and asks again if it gets no answer', async () => {
    const moved: Status = { ...answer(), devices: [{ ...device, bytesDone: 2 ** 28 }] };
    await serve(says(line(answer())), says(''), says(''), says(line(answer())), says(line(moved)));
    const { exit, stdout, stderr } = await ended(cli(['status', socket(), '--follow']));
    expect([exit, stderr]).toEqual([OK, '']);
    expect(stdout).toBe(`${followed}${lineOf(moved)}\n`);
  });

  it('--follow --json has a line for each answer', async () => {
    await serve(says(line(answer())), says(line(answer())));
    expect(await ended(cli(['status', socket(), '--follow', '--json']))).toEqual({
      exit: OK,
      stdout: line(answer()).repeat(2),
      stderr: '',
    });
  });

  it('--follow ends with an answer that is none of a run, and if there is never one', async () => {
    await serve(says(line(answer())), says('x'));
    const other = await ended(cli(['status', socket(), '--follow']));
    expect([other.exit, other.stdout]).toEqual([FAILED, followed]);
    expect(other.stderr).toContain('the answer is no JSON object [ERR_FILE_CORRUPT');
    await serve(says(line(answer())), ...Array<(client: Socket) => void>(20).fill(says('')));
    const none = await ended(cli(['status', socket(), '--follow']));
    expect([none.exit, none.stdout]).toEqual([FAILED, followed]);
    expect(none.stderr).toContain('no answer: too many ask at once, or the run ends [ERR_FILE, EAGAIN]');
    server?.close();
  });

  it.each([
    ['nothing', '', 'no answer'],
    ['garbage', '\u0000\u001B[2J', 'the answer is no JSON object'],
    ['half an answer', line(answer()).slice(0, 100), 'the answer is no JSON object'],
    ['two answers', line(answer()).repeat(2), 'the answer is no JSON object'],
    ['another version', '{"version":7}', 'version 7, this vfio-shim knows 1'],
    ['no end', 'x'.repeat(2 ** 21), 'an answer of more than 1 MiB is none of a run'],
  ])('fails in one line if it gets %s', async (_, text, why) => {
    await serve(says(text));
    const { exit, stdout, stderr } = await runCli(['status', socket()]);
    expect([exit, stdout, stderr.split('\n').length]).toEqual([FAILED, '', 2]);
    expect(stderr).toContain(socket());
    expect(stderr).toContain(why);
  });

  it('waits for an answer no longer than it says', async () => {
    await serve((client) => void client.write('{'));
    await expect(askStatus(socket(), 50)).rejects.toThrow(
      expect.objectContaining({ code: 'ERR_FILE', errno: 'ETIMEDOUT', message: `${socket()}: no answer in 50 ms` }),
    );
  });

  it('fails if nobody listens', async () => {
    const absent = await runCli(['status', socket()]);
    expect([absent.exit, absent.stderr]).toEqual([FAILED, expect.stringContaining('[ERR_FILE, ENOENT]')]);
    writeFileSync(socket(), '');
    const followedFile = await runCli(['status', socket(), '--follow']);
    expect([followedFile.exit, followedFile.stderr]).toEqual([
      FAILED,
      expect.stringContaining('[ERR_FILE, ECONNREFUSED]'),
    ]);
    expect((await runCli(['status'])).exit).toEqual(USAGE);
  });

  const script = spawnSync('script', ['-qec', 'true', '/dev/null']);
  const noTerminal =
    script.status === 0 ? undefined : `script: ${script.error?.message ?? `exit code ${script.status}`}`;
  it.skipIf(noTerminal !== undefined && !ci)(
    `--follow writes one line over and over in a terminal${because(noTerminal)}`,
    async () => {
      await serve(says(line(answer())), says(line(unknown)));
      const command = `stty cols 30; '${process.execPath}' '${CLI}' status '${socket()}' --follow`;
      const { exit, stdout } = await ended(new Child(['script', '-qec', command, '/dev/null']));
      expect(exit).toEqual(OK);
      expect(stdout).toBe(`\r\u001B[K${lineOf(answer()).slice(0, 29)}\r\u001B[K${lineOf(unknown)}\r\n`);
    },
  );
});

it('the help says what the columns are', async () => {
  const { stdout } = await runCli(['status', '--help']);
  for (const heading of (shown.split('\n')[0] ?? '').split(/ +/).slice(3)) expect(stdout).toContain(heading);
});
