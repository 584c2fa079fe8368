import { struct } from '../abi/struct.ts';
import { VFIO_MIGRATION_P2P, VFIO_MIGRATION_PRE_COPY, VFIO_MIGRATION_STOP_COPY } from '../abi/vfio-v2.ts';
import { commonOptions, streamOptions } from './common-options.ts';
import type { V2Kind } from './driver-kind.ts';
import type { SimMemory } from './memory.ts';
import { count, within } from './option.ts';
import { SimV2Device, type V2Driver } from './v2-device.ts';

/** The header of mtty's migration data (samples/vfio-mdev/mtty.c: struct mtty_data, Linux 6.12). */
const mtty_data = struct('mtty_data', 24, {
  magic: ['u64', 0],
  major_ver: ['u32', 8],
  minor_ver: ['u32', 12],
  nr_ports: ['u32', 16],
  flags: ['u32', 20],
});
const MTTY_MAGIC = 0x7e9d09898c3e2c4en;

/** One port: 8 UART registers, then FIFO and bookkeeping. */
export const MTTY_PORT_SIZE = 36;
const REGISTERS = 8;

const options = {
  ...commonOptions(REGISTERS, (size) =>
    size === REGISTERS ? undefined : `is not ${REGISTERS}: the memory of mtty is its ${REGISTERS} registers`,
  ),
  ...streamOptions,
  ports: count('1 or 2', 1, within(1, 2)),
};

/** Behind the v2 device's own registers and the incoming header in the state memory. */
const PORTS_OFFSET = 128;

/**
 * `mtty`, the sample driver in Linux 6.12 that needs no hardware, quirks included: a bad header fails the write with
 * `EFAULT` though its bytes are taken, and the device can run afterwards. BAR0 is the first port's UART registers.
 */
export const mtty: V2Kind<typeof options> = {
  protocol: 'v2',
  summary: "the kernel's sample driver, samples/vfio-mdev/mtty.c, with its stream format",
  options,
  pci: { vendor: 0x4348, device: 0x3253, class: 0x070002 },
  small: {},
  identity: ({ ports }) => ({ ports: String(ports) }),
  create: (values, memory) => new SimV2Device(values, mttyDriver(values.ports, memory), memory),
};

function mttyDriver(ports: number, memory: SimMemory): V2Driver {
  const portState = memory.state.subarray(PORTS_OFFSET, PORTS_OFFSET + ports * MTTY_PORT_SIZE);
  const header = { magic: MTTY_MAGIC, major_ver: 1, minor_ver: 0, nr_ports: ports, flags: 0 };
  return {
    migrationFlags: VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_MIGRATION_PRE_COPY,
    setup: mtty_data.encode(header),
    payloadSize: portState.length,
    forgetsRefusal: true,
    readPayload(position, into) {
      portState.set(memory.bar.subarray(0, REGISTERS));
      into.set(portState.subarray(position, position + into.length));
    },
    writePayload(position, from) {
      portState.set(from, position);
      if (position < REGISTERS) memory.bar.set(from.subarray(0, REGISTERS - position), position);
    },
    checkSetup(bytes) {
      const theirs = mtty_data.decode(bytes);
      const fits = theirs.magic === MTTY_MAGIC && theirs.major_ver === 1 && theirs.minor_ver === 0;
      return fits && theirs.nr_ports === ports && theirs.flags === 0 ? undefined : 'EFAULT';
    },
  };
}
