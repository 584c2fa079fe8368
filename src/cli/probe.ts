import { release } from 'node:os';
import { type Command } from 'commander';
import {
  VFIO_REGION_INFO_FLAG_MMAP,
  VFIO_REGION_INFO_FLAG_READ,
  VFIO_REGION_INFO_FLAG_WRITE,
} from '../abi/vfio-device.ts';
import { VFIO_REGION_TYPE_MIGRATION_DRAFT } from '../abi/vfio-drafts.ts';
import { VFIO_REGION_SUBTYPE_MIGRATION } from '../abi/vfio-v1.ts';
import { VFIO_MIGRATION_P2P, VFIO_MIGRATION_PRE_COPY, VFIO_MIGRATION_STOP_COPY } from '../abi/vfio-v2.ts';
import { Host } from '../host/host.ts';
import { variantDriver } from '../host/variant-driver.ts';
import { whyNone, type WhyNone } from '../host/why-none.ts';
import { migrationRegionAmong, type RegionInfo } from '../vfio/client/device-info.ts';
import { whyUnknown } from '../vfio/client/identify.ts';
import { migrationRegionType } from '../vfio/server/migration-region.ts';
import type { MigratableDevice, Protocol } from '../device/migratable.ts';
import { judge, type End, type Judgement } from './against.ts';
import { PROBE_FORMAT, PROBE_VERSION, readAgainst } from './against-file.ts';
import { identityOf, openDevice, type OpenDevice } from './device.ts';
import { deviceHelp, parseDevice } from './device-name.ts';
import { outlook, socketOutlook, type Capabilities, type Outlook } from './outlook.ts';
import { print } from './output.ts';
import { table } from './table.ts';
import { useLogs } from './logs.ts';

export function add(program: Command): void {
  program
    .command('probe')
    .description('what a device is, which migration protocol its driver speaks, and which VMM can migrate it')
    .argument('<device>', 'the device, see below')
    .option(
      '--against <file>',
      'say whether the device would take this state: of a state file, or of a device by its probe --json',
    )
    .option('--json', 'print JSON')
    .option('-v, --verbose', 'log what is done, on stderr')
    .addHelpText('after', `${againstHelp}\n${deviceHelp}`)
    .action((text: string, options: ProbeOptions) => {
      useLogs(options.verbose === true);
      const name = parseDevice(text);
      const other = options.against === undefined ? undefined : readAgainst(options.against);
      using device = openDevice(name, { look: true });
      const findings = probe(device);
      const against = other && {
        file: options.against,
        kind: other.kind,
        ...judge(other.end, endOf(device, findings)),
      };
      if (options.json === true) print(`${JSON.stringify({ ...findings, ...(against && { against }) })}\n`);
      else print(`${inWords(findings)}${against === undefined ? '' : `\n${answer(against)}`}`);
      if (against !== undefined) process.exitCode = STATUS[against.takes];
    });
}

interface ProbeOptions {
  readonly against?: string;
  readonly json?: true;
  readonly verbose?: true;
}

/** 2 is a wrong command line. */
const STATUS = { yes: 0, no: 1, unknown: 3 } as const;
const IN_WORDS = { yes: 'yes', no: 'no', unknown: 'cannot tell' } as const;

const againstHelp = `
With --against the exit status is 0 if the device would take the state, 1 if not, and 3 if that cannot be told.`;

/** The device as the destination. */
function endOf({ migratable }: OpenDevice, { protocol, migrationFlags, identity, dataSize: size }: Findings): End {
  const dataSection =
    migratable === undefined || migratable.protocol === 'v2' ? null : migratable.device.dataSection.size;
  return { protocol, migrationFlags, identity, dataSize: size, largestBuffer: null, dataSection };
}

function answer({ file, takes, findings }: Judgement & { readonly file: string | undefined }): string {
  const rows = findings.map((each) => [each.about, `${IN_WORDS[each.answer]}: ${each.why}`] as const);
  return `Takes the state of ${file}: ${IN_WORDS[takes]}\n${table(rows)}`;
}

type Findings = ReturnType<typeof probe>;

function probe(device: OpenDevice) {
  const { text, name, migratable, facts, foundIn } = device;
  const protocol: Protocol | 'none' = migratable?.protocol ?? 'none';
  const dmaLogging = device.tryDmaLog();
  const migrationFlags = migratable?.protocol === 'v2' ? migratable.device.migrationFlags : 0;
  return {
    format: PROBE_FORMAT,
    version: PROBE_VERSION,
    device: text,
    name,
    driver: facts.driver ?? null,
    sysfs: facts.sysfs,
    id: facts.identity['id'] ?? null,
    identity: identityOf(device),
    protocol,
    migrationFlags,
    flags: namesOf(migrationFlags, MIGRATION_FLAGS),
    state: foundIn ?? null,
    stale: foundIn !== undefined && foundIn !== 'RUNNING',
    dataSize: dataSize(migratable),
    regions: facts.regions.map(describeRegion),
    irqs: facts.irqs,
    dmaLogging,
    whyNone: protocol === 'none' ? immobile(device) : null,
    migration: verdicts(device, { protocol, migrationFlags, dmaLogging }),
  };
}

function verdicts({ facts }: OpenDevice, capabilities: Capabilities): Outlook[] {
  const unknown = capabilities.protocol === 'none' ? { unknown: whyUnknown(facts.regions) } : {};
  if (facts.carrier === 'vfio-user') return socketOutlook(capabilities.protocol, unknown.unknown);
  return outlook({ ...capabilities, ...unknown });
}

/** Why the device cannot migrate, and which driver of this kernel would. */
function immobile({ facts }: OpenDevice): WhyNone | null {
  if (facts.carrier !== undefined) return null; // it is none of this kernel's
  if (migrationRegionAmong(facts.regions, VFIO_REGION_TYPE_MIGRATION_DRAFT) !== undefined) return null; // the verdicts say why
  const { driver, modalias } = facts.sysfs;
  const variant = variantDriver(new Host(), release(), modalias ?? '');
  return whyNone({ driver, modalias, variant, release: release() });
}

const MIGRATION_FLAGS = [
  [VFIO_MIGRATION_STOP_COPY, 'STOP_COPY'],
  [VFIO_MIGRATION_P2P, 'P2P'],
  [VFIO_MIGRATION_PRE_COPY, 'PRE_COPY'],
] as const;

const REGION_FLAGS = [
  [VFIO_REGION_INFO_FLAG_READ, 'READ'],
  [VFIO_REGION_INFO_FLAG_WRITE, 'WRITE'],
  [VFIO_REGION_INFO_FLAG_MMAP, 'MMAP'],
] as const;

function namesOf(flags: number, names: readonly (readonly [number, string])[]): string[] {
  return names.filter(([flag]) => (flags & flag) !== 0).map(([, name]) => name);
}

function describeRegion({ index, size, flags, type }: RegionInfo) {
  const generation = (['v1', 'draft-2018'] as const).find((each) => migrationRegionType(each) === type?.type);
  const isMigration = generation !== undefined && type?.subtype === VFIO_REGION_SUBTYPE_MIGRATION;
  const kind = generation === 'v1' ? 'migration' : 'migration, of a draft';
  return {
    index,
    size,
    flags: namesOf(flags, REGION_FLAGS),
    type: isMigration ? kind : type === undefined ? null : `${type.type}/${type.subtype}`,
  };
}

/** `MIG_DATA_SIZE`; null if the driver has not got it, as none but those of v2 has. */
function dataSize(migratable: MigratableDevice | undefined): number | null {
  if (migratable?.protocol !== 'v2') return null;
  try {
    return migratable.device.stopCopyLength();
  } catch {
    return null;
  }
}

function inWords(found: Findings): string {
  const { sysfs, state, stale, protocol } = found;
  const size = found.dataSize === null ? 'not known before it is saved' : `${found.dataSize} bytes`;
  const flags = `${found.migrationFlags} (${found.flags.join(' | ')})`;
  const staleNote = stale ? ', left behind by an earlier user; save and restore reset it' : '';
  const facts = table([
    ['device', found.device],
    ['driver', found.driver ?? 'not known'],
    ['type', sysfs.mdevTypeName ?? sysfs.mdevType],
    ['id', found.id ?? undefined],
    ['sysfs', sysfs.path],
    ['protocol', protocol],
    ['why', found.whyNone?.reason],
    ['remedy', found.whyNone?.remedy ?? undefined],
    ['migrationFlags', protocol === 'v2' ? flags : undefined],
    ['state', state === null ? undefined : `${state}${staleNote}`],
    ['dataSize', protocol === 'none' ? undefined : size],
    ...found.regions.map(
      ({ index, size: bytes, flags: names, type }) =>
        [
          `region ${index}`,
          [`${bytes} bytes`, names.join(' | '), ...(type === null ? [] : [type])].join(', '),
        ] as const,
    ),
    ['irqs', String(found.irqs)],
    [
      'dmaLogging',
      found.dmaLogging === 'works' ? 'works' : `${found.dmaLogging}: all of the guest's memory may count as dirty`,
    ],
  ]);
  const verdicts = found.migration.map(({ vmm, works, why }) => [vmm, `${works ? 'yes' : 'no'}: ${why}`] as const);
  return `${facts}\nMigration with\n${table(verdicts)}`;
}
