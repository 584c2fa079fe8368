import { protocolOf, type QemuVersion } from '../tools/vmm/binaries.ts';
import type { Cell, MatrixDevice, Way } from './cell.ts';

/** QEMUs, oldest first. */
export const QEMUS = ['5.2', '7.2', '10.0', 'newest'] as const satisfies readonly QemuVersion[];

/** What its driver speaks. */
const SPEAKS = { qat: 'v2', mtty: 'v2', pds: 'v2', 'vendor-v1': 'v1' } as const;

const isBridged = (qemu: QemuVersion, device: MatrixDevice): boolean =>
  device !== 'none' && SPEAKS[device] !== protocolOf(qemu);

/** `vendor-v1 (v1), bridged` */
function deviceTitle(qemu: QemuVersion, device: keyof typeof SPEAKS): string {
  return `${device} (${SPEAKS[device]}), ${isBridged(qemu, device) ? 'bridged' : 'native'}`;
}

const WAYS = { live: 'live', fd: '`fd:`', exec: '`exec:`', file: '`file:`', savevm: '`savevm`' } as const;

/* Each QEMU to itself. */

const ITSELF = 'Each QEMU to itself';

/** `file:` came with QEMU 8.2. */
const NO_FILE = "Parameter 'uri' expects a valid migration protocol";

const refusedIf = (condition: boolean, refusal: string): { refusal?: string } => (condition ? { refusal } : {});

/** An old one and a new one that are handed descriptors in CI. */
const FD_QUICK: ReadonlySet<QemuVersion> = new Set(['7.2', 'newest']);

function* itself(): Generator<Cell> {
  for (const qemu of QEMUS) {
    for (const device of ['qat', 'mtty', 'vendor-v1'] as const) {
      for (const way of ['live', 'fd', 'exec', 'file', 'savevm'] as const) {
        const hasNot = way === 'file' && protocolOf(qemu) === 'v1';
        if (hasNot && device !== 'qat') continue;
        yield {
          table: ITSELF,
          row: `${qemu}, ${deviceTitle(qemu, device)}`,
          column: WAYS[way],
          from: qemu,
          to: qemu,
          machine: 'pc',
          device,
          way,
          ...refusedIf(hasNot, NO_FILE),
          quick:
            (way === 'live' || (way === 'fd' && FD_QUICK.has(qemu))) && isBridged(qemu, device) && device !== 'mtty',
        };
      }
    }
  }
}

/* From one QEMU to another. */

const CROSSING = 'From one QEMU to another';

const ROUTES: readonly (readonly [QemuVersion, QemuVersion])[] = QEMUS.flatMap((from) =>
  QEMUS.filter((to) => to !== from).map((to) => [from, to] as const),
);

/** The config record of QEMU 5.2 is where later ones have none (docs/stream.md). */
const FROM_5_2 = 'Missing section footer for 0000:00:04.0/vfio';
const TO_5_2 = '0000:90:00.0: Unknown tag 0x7e000000';

/** Old to new and back, and what cannot be. */
const QUICK_ROUTES: ReadonlyMap<string, MatrixDevice> = new Map([
  ['7.2 newest', 'qat'],
  ['newest 7.2', 'vendor-v1'],
  ['5.2 10.0', 'qat'],
]);

function* crossing(): Generator<Cell> {
  for (const [from, to] of ROUTES) {
    const older = QEMUS.find((qemu) => qemu === from || qemu === to);
    for (const way of ['live', 'exec'] as const) {
      for (const device of ['none', 'qat', 'mtty', 'vendor-v1'] as const) {
        if (way === 'exec' && (device === 'none' || device === 'mtty')) continue;
        yield {
          table: CROSSING,
          row: `${from} to ${to}, ${WAYS[way]}`,
          column: device === 'none' ? 'no device' : `${device} (${SPEAKS[device]})`,
          from,
          to,
          machine: `pc-i440fx-${older}`,
          device,
          way,
          ...refusedIf(device !== 'none' && older === '5.2', from === '5.2' ? FROM_5_2 : TO_5_2),
          quick: way === 'live' && device !== 'none' && QUICK_ROUTES.get(`${from} ${to}`) === device,
        };
      }
    }
  }
}

/* What newer QEMUs can do besides. */

interface Feature {
  readonly title: string;
  /** Not in QEMUs before this one. */
  readonly since?: QemuVersion;
  readonly way?: Way;
  readonly cell: Partial<Cell>;
}

const MULTIFD: Partial<Cell> = {
  capabilities: ['multifd'],
  properties: ['x-migration-multifd-transfer=on'],
  sourceTraces: ['vfio_save_complete_precopy_thread_end'],
  destinationTraces: ['vfio_load_bufs_thread_end'],
};
const ACK: Partial<Cell> = {
  capabilities: ['return-path', 'switchover-ack'],
  sourceTraces: ['source_return_path_thread_switchover_acked'],
};

const FEATURES: readonly Feature[] = [
  { title: 'without `return-path`', cell: { withoutReturnPath: true } },
  { title: '`multifd`, device state by its channels', cell: MULTIFD },
  {
    title: 'the same, `x-migration-load-config-after-iter=on`',
    since: 'newest',
    cell: { ...MULTIFD, properties: ['x-migration-multifd-transfer=on', 'x-migration-load-config-after-iter=on'] },
  },
  {
    title: '`multifd`, memory only',
    cell: { capabilities: ['multifd'], properties: ['x-migration-multifd-transfer=off'] },
  },
  { title: '`switchover-ack`', cell: ACK },
  { title: '`mapped-ram`, `file:`', way: 'file', cell: { capabilities: ['mapped-ram'] } },
  { title: '`mapped-ram` and `multifd`, `file:`', way: 'file', cell: { capabilities: ['mapped-ram', 'multifd'] } },
  {
    title: '`postcopy-ram`',
    cell: {
      capabilities: ['postcopy-ram'],
      refusal: '0000:90:00.0: VFIO migration is not supported with postcopy migration',
    },
  },
  {
    title: '`background-snapshot`',
    way: 'exec',
    cell: {
      capabilities: ['background-snapshot'],
      refusal: '0000:90:00.0: VFIO migration is not supported with background snapshot',
    },
  },
];

const FEATURE = 'What QEMU 10 and newer can do besides';

const ROUND_TRIP = ['--round-trip'];

function* features(): Generator<Cell> {
  for (const { title, since, way = 'live', cell } of FEATURES) {
    for (const qemu of ['10.0', 'newest'] as const) {
      if (since !== undefined && QEMUS.indexOf(qemu) < QEMUS.indexOf(since)) continue;
      const here = { table: FEATURE, row: `${title}, ${qemu}`, from: qemu, to: qemu, machine: 'pc', way, ...cell };
      const quick = qemu === 'newest' && cell.sourceTraces !== undefined && since === undefined;
      yield { ...here, column: deviceTitle(qemu, 'qat'), device: 'qat' };
      yield { ...here, column: deviceTitle(qemu, 'vendor-v1'), device: 'vendor-v1', quick };
      if (cell.refusal !== undefined) continue; // the VFIO device decides nothing
      yield { ...here, column: 'qat (v2), `--round-trip`', device: 'qat', fromRun: ROUND_TRIP, toRun: ROUND_TRIP };
    }
  }
}

/* A driver without pre-copy: presented in v1 and back it has it. */

const FLAGS = 'With `switchover-ack`, if the ends offer different flags';

function* flags(): Generator<Cell> {
  for (const qemu of ['10.0', 'newest'] as const) {
    const here = {
      table: FLAGS,
      column: qemu,
      from: qemu,
      to: qemu,
      machine: 'pc',
      device: 'pds',
      way: 'live',
    } as const;
    const capabilities = ACK.capabilities ?? [];
    const stalls =
      "QEMU waits for the destination's acknowledgement, which the source's device without pre-copy never asks for";
    const legacy = qemu === '10.0' ? { stalls } : {};
    yield { ...here, capabilities, row: 'pds without pre-copy to pds with it', toRun: ROUND_TRIP, ...legacy };
    const refusal = '0000:90:00.0: Received INIT_DATA_SENT but switchover ack is not used';
    yield { ...here, capabilities, row: 'pds with pre-copy to pds without', fromRun: ROUND_TRIP, refusal };
  }
}

export const cells: readonly Cell[] = [...itself(), ...crossing(), ...features(), ...flags()];
