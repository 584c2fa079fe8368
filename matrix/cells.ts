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

const WAYS = { live: 'live', exec: '`exec:`', file: '`file:`', savevm: '`savevm`' } as const;

/* Each QEMU to itself. */

const ITSELF = 'Each QEMU to itself';

/** `file:` came with QEMU 8.2. */
const NO_FILE: Partial<Record<QemuVersion, string>> = {
  '5.2': "Parameter 'uri' expects a valid migration protocol",
  '7.2': 'unknown migration protocol: file:',
};

const refusedIf = (condition: boolean, refusal: string | undefined): { refusal?: string } =>
  condition && refusal !== undefined ? { refusal } : {};

function* itself(): Generator<Cell> {
  for (const qemu of QEMUS) {
    for (const device of ['qat', 'mtty', 'vendor-v1'] as const) {
      for (const way of ['live', 'exec', 'file', 'savevm'] as const) {
        if (way === 'file' && NO_FILE[qemu] !== undefined && device !== 'qat') continue;
        yield {
          table: ITSELF,
          row: `${qemu}, ${deviceTitle(qemu, device)}`,
          column: WAYS[way],
          from: qemu,
          to: qemu,
          machine: 'pc',
          device,
          way,
          ...refusedIf(way === 'file', NO_FILE[qemu]),
          quick: way === 'live' && isBridged(qemu, device) && device !== 'mtty',
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
  { title: '`postcopy-ram`', cell: { capabilities: ['postcopy-ram'] } },
  { title: '`background-snapshot`', way: 'exec', cell: { capabilities: ['background-snapshot'] } },
];

const FEATURE = 'What QEMU 10 and newer can do besides';

function* features(): Generator<Cell> {
  for (const { title, since, way = 'live', cell } of FEATURES) {
    for (const qemu of ['10.0', 'newest'] as const) {
      if (since !== undefined && QEMUS.indexOf(qemu) < QEMUS.indexOf(since)) continue;
      for (const device of ['qat', 'vendor-v1'] as const) {
        yield {
          table: FEATURE,
          row: `${title}, ${qemu}`,
          column: deviceTitle(qemu, device),
          from: qemu,
          to: qemu,
          machine: 'pc',
          device,
          way,
          ...cell,
        };
      }
    }
  }
}

export const cells: readonly Cell[] = [...itself(), ...crossing(), ...features()];
