import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Conclusion, Judgement } from '../../src/check/index.ts';
import { CLI, requireCli } from '../../tools/vmm/cli.ts';
import { changes, recording } from '../check/recordings.ts';
import { FAILED, OK, runCli, USAGE } from '../support/cli-run.ts';

describe('vfio-shim check', () => {
  let directory = '';
  beforeAll(() => {
    requireCli();
    directory = mkdtempSync(join(tmpdir(), 'vfio-shim-check-'));
  });
  afterAll(() => rmSync(directory, { recursive: true, force: true }));
  const file = (name: string, text: string | Uint8Array): string => {
    const path = join(directory, name);
    writeFileSync(path, text);
    return path;
  };

  it('prints TAP, takes the deviations of the driver for known, and writes JUnit XML', async () => {
    const report = join(directory, 'report.xml');
    const { exit, stdout, stderr } = await runCli(['check', 'sim:mtty', '--junit', report]);
    expect({ exit, stderr }).toEqual({ exit: OK, stderr: '' });
    expect(stdout).toMatch(
      /^TAP version 14\n1\.\.109\n# sim:mtty: v2, migration flags 7;.*\n# known deviations: mtty \(4\)\n/,
    );
    expect(stdout.match(/^not ok .* # TODO known: /gm)).toHaveLength(2);
    expect(readFileSync(report, 'utf8')).toContain('tests="109" failures="0"');
  });

  it('ends with 1 if a rule is broken, with none known or one of a file', async () => {
    const none = await runCli(['check', 'sim:mtty', '--deviations', 'none', '--json']);
    expect(none.exit).toEqual(FAILED);
    const { results, conforms } = JSON.parse(none.stdout) as Conclusion;
    const broken = results.flatMap(({ id, verdict }) => (verdict === 'broken' ? id : []));
    expect({ broken, conforms }).toEqual({ broken: ['v2-precopy-end', 'v2-refused-for-good'], conforms: false });
    const known = file('known.json', JSON.stringify(broken.map((rule) => ({ rule, why: 'w', source: 's' }))));
    expect((await runCli(['check', 'sim:mtty', '--deviations', known])).exit).toEqual(OK);
  });

  it.each([
    [['check'], USAGE, /give a device, or --recording FILE/],
    [['check', 'sim:qat', '--recording', 'r'], USAGE, /not both/],
    [['check', '--recording', 'r', '--junit', 'j'], USAGE, /are for a device/],
    [['check', 'sim:qat', '--deviations', 'nobody'], USAGE, /is none of qat, mlx5, mtty/],
    [['check', 'sim:qat', '--deviations', '/nowhere.json'], FAILED, /nowhere.json: no such file/],
    [['check', 'sim:draft-2018'], FAILED, /v1 and v2 are checked \[ERR_FEATURE_UNSUPPORTED, ENOTTY\]/],
    [['check', '--recording', '/dev/null'], FAILED, /the file is empty \[ERR_FILE_CORRUPT/],
    [['run', '--check', '--present', 'draft-2019', '--', 'true'], USAGE, /there are no rules of draft-2019/],
  ])('%j is refused', async (args, exit, why) => {
    const ended = await runCli(args);
    expect(ended.exit).toEqual(exit);
    expect(ended.stderr).toMatch(why);
  });

  it('a server of vfio-user conforms, but for what its protocol has no message for', async () => {
    const socket = join(directory, 'socket');
    const server = spawn(process.execPath, [CLI, 'serve', '--device', 'qat,size=16K,seed=3', '--listen', socket]);
    try {
      const ready = once(server.stderr, 'data');
      expect(String(await ready)).toContain('listening');
      const none = await runCli(['check', `vfio-user:${socket}`, '--deviations', 'none', '--json']);
      const { results } = JSON.parse(none.stdout) as Conclusion;
      expect(results.flatMap(({ id, verdict }) => (verdict === 'broken' ? id : []))).toEqual([
        'v2-precopy-initial',
        'v2-precopy-end',
      ]);
      expect((await runCli(['check', `vfio-user:${socket}`])).exit).toEqual(OK);
    } finally {
      server.kill();
      await once(server, 'exit');
    }
  });

  it('of a server of vfio-user that ends with its first client, each rule that is left says so', async () => {
    const [real, socket] = [join(directory, 'real'), join(directory, 'first-only')];
    const server = spawn(process.execPath, [CLI, 'serve', '--device', 'qat,size=16K,seed=3', '--listen', real]);
    let relayed = 0;
    const relay = createServer((client) => {
      relay.close();
      const upstream = connect(real);
      for (const each of [client, upstream]) each.on('error', () => {});
      client.on('close', () => upstream.destroy());
      client.on('data', (bytes: Buffer) => {
        relayed += 1; // a message each: the client has one open at a time
        if (relayed > 60) client.destroy();
        else upstream.write(bytes);
      });
      upstream.pipe(client);
    });
    try {
      expect(String(await once(server.stderr, 'data'))).toContain('listening');
      relay.listen(socket);
      await once(relay, 'listening');
      const { exit, stdout, stderr } = await runCli(['check', `vfio-user:${socket}`, '--json']);
      expect({ exit, stderr }).toEqual({ exit: FAILED, stderr: '' });
      const { results, conforms, summary } = JSON.parse(stdout) as Conclusion & { readonly summary: string };
      const gone = results.filter(({ isGone }) => isGone === true);
      expect(gone.length).toBeGreaterThan(50);
      expect(results.slice(-gone.length)).toEqual(gone);
      for (const { verdict, why } of gone) {
        expect({ verdict, why }).toEqual({
          verdict: 'not tried',
          why: `the device is gone: VFIO_DEVICE_RESET: the driver answers ECONNRESET (ECONNRESET); it cannot be opened again: its server takes no client after the first: connect to ${socket}: connect failed with ENOENT (ENOENT)`,
        });
      }
      expect({ conforms, summary }).toEqual({
        conforms: false,
        summary: expect.stringMatching(new RegExp(`, ${gone.length} of them as the device was gone$`)) as string,
      });
    } finally {
      server.kill();
      await once(server, 'exit');
      relay.close();
    }
  });

  it('judges the VMM of a recording', async () => {
    const bad = file('bad.jsonl', recording(changes(1, 5, 'EINVAL')));
    const { exit, stdout } = await runCli(['check', '--recording', bad]);
    expect(exit).toEqual(FAILED);
    expect(stdout).toBe(
      'line 3, d: vmm-v1-state: A VMM writes no device_state that is invalid, or ERROR. Here it writes 5. (linux/vfio.h 5.8, struct vfio_device_migration_info: device_state)\n2 accesses, 1 findings\n',
    );
    const good = file('good.jsonl', recording(changes(1, 3)));
    const json = await runCli(['check', '--recording', good, '--json']);
    expect(json.exit).toEqual(OK);
    expect(JSON.parse(json.stdout) as Judgement).toEqual({ findings: [], omitted: 0, accesses: 2, isWhole: true });
  });
});
