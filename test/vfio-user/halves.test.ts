import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { VFIO_USER_DEVICE_GET_REGION_INFO } from '../../src/abi/vfio-user.ts';
import { vfio_region_info } from '../../src/abi/vfio-device.ts';
import { mapSharedMemory } from '../../src/sys/memory.ts';
import { parseSize } from '../../src/sim/size.ts';
import { DATA_OFFSET } from '../../src/v1/region.ts';
import { V1RegisterAccess } from '../../src/v1/registers.ts';
import { V1 } from '../../src/v1/states.ts';
import { V2 } from '../../src/v2/states.ts';
import { readData } from '../../src/v2/data-fd.ts';
import { findMigrationRegion } from '../../src/vfio/client/device-info.ts';
import { poll } from '../../src/vmm/deadline.ts';
import { join } from '../support/bytes.ts';
import { patient } from '../support/patience.ts';
import { TestClient, useServices } from '../support/vfio-user.ts';

const services = useServices();
const MIB = 2 ** 20;
const PATIENCE = patient(20_000);

/** A client of v1 of a v2 server, which has mapped the data section. */
class Mapped {
  readonly client: TestClient;
  readonly registers: V1RegisterAccess;
  readonly section: Uint8Array;
  readonly region: number;

  constructor(path: string) {
    this.client = new TestClient(path);
    const { device } = this.client;
    if (device.protocol !== 'v1') throw new Error('v1 is presented');
    this.registers = new V1RegisterAccess(device.device);
    this.region = findMigrationRegion(this.client.port)?.index ?? -1;
    const body = vfio_region_info.encode({ argsz: 256, index: this.region });
    const reply = this.client.server.link.ask({ command: VFIO_USER_DEVICE_GET_REGION_INFO, name: 'it', body });
    const [file] = reply.fds;
    if (file === undefined) throw new Error('the region has no file');
    this.section = mapSharedMemory(file.number, device.device.dataSection.size, DATA_OFFSET).bytes;
    file.close();
  }

  stop(): void {
    this.registers.setDeviceState(V1.PRE_COPY);
    this.registers.setDeviceState(V1.STOP_COPY);
  }

  /** Asks for the next buffer; `undefined` at the end. */
  next(): { readonly at: number; readonly bytes: Uint8Array } | undefined {
    if (this.registers.pendingBytes() === 0) return undefined;
    const { offset, size } = this.registers.dataBuffer();
    const at = offset - DATA_OFFSET;
    return { at, bytes: this.section.subarray(at, at + size) };
  }

  /** The same bytes by messages. */
  byMessage({ at, bytes }: { readonly at: number; readonly bytes: Uint8Array }): Uint8Array {
    const into = new Uint8Array(bytes.length);
    const region = { index: this.region, offset: 0n };
    for (let done = 0; done < into.length;)
      done += this.client.port.read(region, DATA_OFFSET + at + done, into.subarray(done));
    return into;
  }
}

/** The state of a v2 server's device, as a v2 client reads it. */
function stateOf(path: string): Uint8Array {
  const client = new TestClient(path);
  const { device } = client.device;
  if (client.device.protocol !== 'v2' || !('openSession' in device)) throw new Error('the server speaks v2');
  const session = device.setState(V2.STOP_COPY);
  if (session === undefined) throw new Error('no session');
  const pieces: Uint8Array[] = [];
  for (;;) {
    const into = new Uint8Array(MIB);
    const length = readData(session, into);
    if (length === 0) break;
    pieces.push(into.slice(0, length));
  }
  client.close();
  return join(pieces);
}

describe('the two halves of the data section that a v1 client of a v2 server sees', () => {
  it.each([['1'], ['4K'], ['1M'], ['2M'], ['3M'], ['5000K']])(
    'have %s of state one after the other: a buffer stays as it is until it is acknowledged, while the next one comes',
    async (size) => {
      const server = await services().serve(`qat,size=${size},seed=3`, PATIENCE);
      const whole = stateOf(server);
      const path = await services().proxy(server, { present: 'v1', dataSection: 2 * MIB, timeout: PATIENCE });
      const user = new Mapped(path);
      expect(user.section).toHaveLength(2 * MIB);
      user.stop();
      const got: Uint8Array[] = [];
      let last: { at: number; end: number } | undefined;
      for (let buffer = user.next(); buffer !== undefined; buffer = user.next()) {
        const { at, bytes } = buffer;
        const end = at + bytes.length;
        expect(bytes.length).toBeGreaterThan(0);
        expect(bytes.length).toBeLessThanOrEqual(MIB);
        if (last !== undefined)
          expect(at >= last.end || end <= last.at, `${at} after ${JSON.stringify(last)}`).toBe(true);
        last = { at, end };
        const done = got.reduce((sum, { length }) => sum + length, 0);
        const expected = whole.subarray(done, done + bytes.length);
        expect(bytes).toBeBytes(expected);
        // the next one comes into the other half by itself, though this one was not acknowledged
        const ahead = whole.subarray(done + bytes.length, done + bytes.length + MIB);
        const other = user.section.subarray(MIB - at, MIB - at + ahead.length);
        const isAhead = (): true | undefined => (Buffer.compare(other, ahead) === 0 ? true : undefined);
        // eslint-disable-next-line no-await-in-loop -- one after the other
        if (bytes.length === MIB) await poll(isAhead, PATIENCE, 'the next buffer to come');
        expect(bytes, 'while the next has come').toBeBytes(expected);
        expect(user.byMessage(buffer), 'by messages').toBeBytes(expected);
        got.push(bytes.slice());
      }
      expect(join(got)).toBeBytes(whole);
      expect(whole.length).toBeGreaterThan(parseSize(size, (why) => new Error(why)));
      user.registers.setDeviceState(V1.RUNNING);
      user.client.close();
    },
  );

  it('are one, if there is no room for two buffers', async () => {
    const server = await services().serve('qat,size=150K,seed=3', PATIENCE);
    const whole = stateOf(server);
    const path = await services().proxy(server, { present: 'v1', dataSection: 65_536, timeout: PATIENCE });
    const user = new Mapped(path);
    user.stop();
    const got: Uint8Array[] = [];
    for (let buffer = user.next(); buffer !== undefined; buffer = user.next()) {
      expect(buffer.at).toBe(0);
      got.push(user.byMessage(buffer));
    }
    expect(join(got)).toBeBytes(whole);
    user.client.close();
  });

  it('take no memory any more once their client has gone', async () => {
    const server = await services().serve('qat,size=3M,seed=3', PATIENCE);
    const path = await services().proxy(server, { present: 'v1', dataSection: 2 * MIB, timeout: PATIENCE });
    /** Shared memory that this process has touched, of which the proxy is a thread (proc(5)). */
    const shared = (): number =>
      Number(/^RssShmem:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) * 1024;
    const saved = (): void => {
      const client = new TestClient(path); // which the proxy takes once the one before has gone
      expect(client.save().length).toBeGreaterThan(3);
      client.close();
    };
    saved();
    const before = shared();
    for (let n = 0; n < 8; n += 1) saved();
    expect(shared() - before).toBeLessThan(4 * 2 * MIB); // that of the last is given back in a moment
  });

  it('have nothing of what was read ahead once the device was reset, runs, or is to be loaded', async () => {
    const server = await services().serve('qat,size=3M,seed=3', PATIENCE);
    const whole = stateOf(server);
    const path = await services().proxy(server, { present: 'v1', dataSection: 2 * MIB, timeout: PATIENCE });
    const user = new Mapped(path);
    const { client, registers } = user;
    const leave = {
      reset: () => {
        client.port.reset();
        expect(() => registers.pendingBytes()).toThrow('EIO'); // a session of which data were taken is lost
        registers.setDeviceState(V1.RUNNING);
      },
      run: () => registers.setDeviceState(V1.RUNNING),
      load: () => {
        registers.setDeviceState(V1.STOP);
        registers.setDeviceState(V1.RESUMING);
        const { offset } = registers.dataSpace();
        const at = offset - DATA_OFFSET;
        // what is given is what arrives, whatever came ahead before
        user.section.set(whole.subarray(0, MIB), at);
        registers.setDataSize(MIB);
        user.section.set(whole.subarray(MIB, 2 * MIB), at);
        registers.setDataSize(MIB);
        user.section.set(whole.subarray(2 * MIB), at);
        registers.setDataSize(whole.length - 2 * MIB);
        registers.setDeviceState(V1.RUNNING);
      },
    };
    for (const act of [leave.reset, leave.run, leave.load]) {
      user.stop();
      expect(user.next()?.bytes).toBeBytes(whole.subarray(0, MIB)); // and the next one is on its way
      act();
      user.stop();
      const got: Uint8Array[] = [];
      for (let buffer = user.next(); buffer !== undefined; buffer = user.next()) got.push(buffer.bytes.slice());
      expect(join(got)).toBeBytes(whole);
      registers.setDeviceState(V1.RUNNING);
    }
    client.close();
  });
});
