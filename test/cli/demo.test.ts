import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import type { DemoResult, PartResult } from '../../src/demo/result.ts';
import { MarkedChild } from '../../tools/vmm/marked-child.ts';
import type { Exit } from '../../src/vmm/child.ts';
import { describeWithQemu } from '../real/requirements.ts';
import { CLI, requireCli } from '../../tools/vmm/cli.ts';
import { executableDirectory } from '../support/compiler.ts';
import { because, lacksForRun } from '../support/host.ts';

interface Ended extends Exit {
  readonly stdout: string;
  readonly stderr: string;
  /** Processes and files that are still there. */
  readonly left: readonly string[];
}

interface Start {
  readonly env?: NodeJS.ProcessEnv;
  /** What the demo runs under. */
  readonly prefix?: readonly string[];
  /** Sent as soon as a line of the output has this text in it; or nobody reads on from there. */
  readonly signalAt?: readonly [text: string, signal: NodeJS.Signals | 'reads no more'];
}

beforeAll(requireCli);

/** Runs the demo to its end, in a directory for temporary files that is its own. */
async function demo(args: readonly string[], { env = {}, prefix = [], signalAt }: Start = {}): Promise<Ended> {
  const directory = mkdtempSync(join(tmpdir(), 'vfio-shim-'));
  const child = new MarkedChild([...prefix, process.execPath, CLI, 'demo', ...args], {
    env: { ...process.env, TMPDIR: directory, ...env },
    onOutput(line) {
      if (signalAt === undefined || !line.includes(signalAt[0])) return;
      if (signalAt[1] === 'reads no more') child.closeOutput();
      else child.signal(signalAt[1]);
    },
  });
  const exit = await child.exited;
  // if a signal ends it, its children have been killed and are about to be gone
  const left = [...(await child.leftBehind(2000)), ...readdirSync(directory)];
  rmSync(directory, { recursive: true });
  return { ...exit, stdout: child.stdout, stderr: child.stderr, left };
}

const SHA256 = /^[0-9a-f]{64}$/;

function expectIntact({ source, destination, writtenSha256, readSha256, ...speed }: PartResult): void {
  expect(source.sha256).toMatch(SHA256);
  expect(destination.sha256).toBe(source.sha256);
  expect(writtenSha256).toMatch(SHA256);
  expect(readSha256).toBe(writtenSha256);
  expect(source.bytes).toBeGreaterThan(speed.guestMemoryBytes);
  expect(destination.bytes).toBe(source.bytes);
  expect(speed.mibPerSecond).toBeGreaterThan(0);
  expect(speed.downtimeSeconds).toBeGreaterThan(0);
}

/** Both parts, from a run that must have gone well. `destination` is where the old VMM's device was at the end. */
function expectBothParts({ left, stdout, stderr, code }: Ended, destination: readonly string[]): DemoResult {
  expect({ left, stderr, code }).toEqual({ left: [], stderr: '', code: 0 });
  const result = JSON.parse(stdout) as DemoResult;
  expect(result).toMatchObject({
    ok: true,
    parts: [
      {
        vmmProtocol: 'v1',
        device: 'qat,size=32M',
        deviceProtocol: 'v2',
        source: { states: ['RUNNING', 'PRE_COPY', 'STOP_COPY', 'STOP'] },
        destination: { states: ['RUNNING', 'RESUMING', ...destination] },
      },
      {
        vmmProtocol: 'v2',
        deviceProtocol: 'v1',
        source: { states: ['RUNNING', 'PRE_COPY', 'STOP_COPY', 'STOP'] },
        destination: { states: ['RUNNING', 'RESUMING', 'RUNNING'] },
      },
    ],
  });
  for (const part of result.parts) expectIntact(part);
  // In part 1 the guest writes all the memory that it sees.
  expect(result.parts[0]?.writtenSha256).toBe(result.parts[0]?.source.sha256);
  expect(result.seconds).toBeLessThan(60);
  return result;
}

const lacking = lacksForRun();
describe.skipIf(lacking !== undefined)(`demo${because(lacking)}`, () => {
  it('migrates both ways and prints one object with --json', async () => {
    const result = expectBothParts(await demo(['--no-qemu', '--json']), ['RUNNING']);
    expect(result.parts[0]?.vmm).toBe('a small v1 VMM');
  });

  it('tells each step with the states of both protocols', async () => {
    const { stdout, stderr, left, code } = await demo(['--no-qemu']);
    expect({ stderr, left, code }).toEqual({ stderr: '', left: [], code: 0 });
    for (const text of [
      'the VMM wrote device_state 3, PRE_COPY',
      'the v2 driver was in RUNNING (v1 device_state 1), PRE_COPY (v1 device_state 3), STOP_COPY (v1 device_state 2)',
      'source       the device is in STOP_COPY (v1 device_state 2)',
      'Proved',
      'a small v1 VMM (v1 only) has live-migrated qat,size=32M (v2 only)',
      'a small v2 VMM (v2 only) has live-migrated vendor-v1,size=64M,dirty=4 (v1 only)',
    ]) {
      expect(stdout).toContain(text);
    }
    expect(stdout).not.toContain('\u001B');
  });

  it('ends in one line where a VMM ends early', async () => {
    const directory = mkdtempSync(join(executableDirectory(), 'qemu-'));
    const qemu = join(directory, 'qemu');
    const script =
      'case "$1" in --version) echo "QEMU emulator version 7.2.0";; *) echo "qemu: oh no" >&2; exit 3;; esac';
    writeFileSync(qemu, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    const { stdout, stderr, left, code } = await demo(['--json'], { env: { VFIO_SHIM_QEMU: qemu } });
    rmSync(directory, { recursive: true });
    expect(stderr).toMatch(/^vfio-shim: VMM at the (source|destination): qemu: oh no \[ERR_TARGET\]\n$/);
    expect(stdout).toMatch(/^\{"error":\{"code":"ERR_TARGET","errno":null,"message":"VMM at .*oh no"\}\}\n$/);
    expect({ left, code }).toEqual({ left: [], code: 1 });
  });

  it('says in one line that it cannot run under another user notification filter', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'vfio-shim-'));
    const prefix = [process.execPath, CLI, 'run', '--device', 'qat', '--sysfs', directory, '--'];
    const { stdout, stderr, left, code } = await demo(['--no-qemu', '--json'], { prefix });
    rmSync(directory, { recursive: true });
    expect(stderr).toMatch(/^vfio-shim: the demo cannot run here: seccomp: .*\[ERR_KERNEL_FEATURE, EBUSY\]\n$/);
    expect(stdout).toMatch(/^\{"error":\{"code":"ERR_KERNEL_FEATURE","errno":"EBUSY","message":"the demo .*"\}\}\n$/);
    expect({ left, code }).toEqual({ left: [], code: 1 });
  });

  it('leaves nothing behind where a signal ends it', async () => {
    const { left, signal } = await demo(['--no-qemu'], { signalAt: ['device_state 4', 'SIGTERM'] });
    expect({ left, signal }).toEqual({ left: [], signal: 'SIGTERM' });
  });

  it('leaves nothing behind where nobody reads on, and ends as SIGPIPE ends a process', async () => {
    const ended = await demo(['--no-qemu'], { signalAt: ['device_state 4', 'reads no more'] });
    expect(ended).toMatchObject({ left: [], stderr: '', code: null, signal: 'SIGPIPE' });
  });
});

describeWithQemu('demo with QEMU', () => {
  it('migrates between two VMs and prints one object', async () => {
    const result = expectBothParts(await demo(['--json']), ['RUNNING', 'STOP']); // the last as the VM quits
    expect(result.parts[0]?.vmm).toMatch(/^QEMU 7\./);
  });
});
