import * as abi from '../../src/abi/index.ts';
import { fieldWidth, type FieldKind, type Fields, type Struct } from '../../src/abi/index.ts';
import type { Question } from './probe.ts';

/** Something src/abi says, and the C expression that must have the same value. */
export interface Claim extends Question {
  readonly value: bigint;
  /** How many bits count: a flag in bit 31 is negative in C. */
  readonly bits: 1 | 32 | 64;
}

/** Names of v1 that the headers spell otherwise since v2 took them over. */
const spelling: Readonly<Record<string, string>> = {
  VFIO_REGION_TYPE_MIGRATION: 'VFIO_REGION_TYPE_MIGRATION_DEPRECATED',
  VFIO_REGION_SUBTYPE_MIGRATION: 'VFIO_REGION_SUBTYPE_MIGRATION_DEPRECATED',
  VFIO_DEVICE_STATE_V1_MASK: 'VFIO_DEVICE_STATE_MASK',
  VFIO_DEVICE_STATE_V1_ERROR: 'VFIO_DEVICE_STATE_SET_ERROR(0)',
};

/** Structs whose last fields came later; ours end where they first ended, and `argsz` says so. */
export const grown: readonly string[] = [
  'vfio_device_attach_iommufd_pt',
  'vfio_device_bind_iommufd',
  'vfio_device_detach_iommufd_pt',
  'vfio_device_info',
];

/** Our flat field names as C paths: members of nested structs, elements of arrays. */
function path(name: string, key: string): string {
  const nested =
    /_cap_|_dma_avail$/.test(name) && ['id', 'version', 'next'].includes(key) && name !== 'vfio_info_cap_header'
      ? `header.${key}`
      : name === 'seccomp_notif' && /^(nr|arch|instruction_pointer|args\d)$/.test(key)
        ? `data.${key}`
        : key.replace(/^bitmap_/, 'bitmap.');
  if (name === 'iommu_hw_info') return nested.replace(/^reserved(\d)$/, '__reserved[$1]');
  if (name.startsWith('iommu_')) return nested.replace(/^reserved/, '__reserved');
  return nested.replace(/(args|regs)(\d+)$/, '$1[$2]');
}

/** `short` in C, but only ever positive. */
const unsignedByUs = new Set(['pollfd.events', 'pollfd.revents']);

function fieldClaims(name: string, key: string, kind: FieldKind, offset: number): Claim[] {
  const member = `((struct ${name} *)0)->${path(name, key)}`;
  const claims: Claim[] = [
    {
      name: `${name}.${key} offset`,
      expression: `__builtin_offsetof(struct ${name}, ${path(name, key)})`,
      value: BigInt(offset),
      bits: 32,
    },
    { name: `${name}.${key} width`, expression: `sizeof(${member})`, value: BigInt(fieldWidth(kind)), bits: 32 },
  ];
  if (unsignedByUs.has(`${name}.${key}`)) return claims;
  const signed = BigInt(kind.startsWith('s'));
  return [
    ...claims,
    { name: `${name}.${key} sign`, expression: `(__typeof__(${member}))-1 < 0`, value: signed, bits: 1 },
  ];
}

function structClaims({ name, size, fields }: Struct<Fields>): Claim[] {
  const key = Object.keys(fields).at(-1) ?? '';
  const [kind] = fields[key] ?? ['u8'];
  // A struct that grew is compared up to the end of its last field, which must then be the end of ours.
  const whole = grown.includes(name)
    ? `__builtin_offsetof(struct ${name}, ${path(name, key)}) + ${fieldWidth(kind)}`
    : `sizeof(struct ${name})`;
  return [
    { name: `${name} size`, expression: whole, value: BigInt(size), bits: 32 },
    ...Object.entries(fields).flatMap(([key, [kind, offset]]) => fieldClaims(name, key, kind, offset)),
  ];
}

function constant(name: string, value: number | bigint, expression = spelling[name] ?? name): Claim {
  return { name, expression, value: BigInt(value), bits: typeof value === 'bigint' ? 64 : 32 };
}

/** What one exported name claims; `undefined` for what is not a constant or struct of the headers. */
function claimsOf(name: string, value: unknown): Claim[] | undefined {
  if (typeof value === 'number' || typeof value === 'bigint') return [constant(name, value)];
  if (typeof value === 'string') return [constant(name, value.charCodeAt(0))];
  if (value === abi.VFIO_DEVICE_STATE) {
    return Object.entries(abi.VFIO_DEVICE_STATE).map(([key, number]) => constant(`VFIO_DEVICE_STATE_${key}`, number));
  }
  if (typeof value === 'object' && value !== null && 'fields' in value) return structClaims(value as Struct<Fields>);
  return undefined;
}

const byName = new Map(Object.entries(abi).map(([name, value]) => [name, claimsOf(name, value)]));

/** Exported names that claim nothing by themselves. */
export const unclaimed: readonly string[] = [...byName]
  .filter(([, claims]) => claims === undefined)
  .map(([name]) => name)
  .toSorted();

const x64Only = new Set(['PTRACE_GETREGS', 'PTRACE_SETREGS', 'user_regs_struct']);
const arm64Only = new Set(['user_pt_regs']);

const some = (wanted: (name: string) => boolean): Claim[] =>
  [...byName].flatMap(([name, claims]) => (wanted(name) ? (claims ?? []) : []));

/** Claims that hold on every architecture. */
export const commonClaims: readonly Claim[] = some((name) => !x64Only.has(name) && !arm64Only.has(name));

/** Claims about one architecture, from its own headers. */
export const archClaims: Readonly<Record<abi.ArchName, readonly Claim[]>> = {
  x64: [
    ...some((name) => x64Only.has(name)),
    ...openFlags('x64'),
    ...structClaims(abi.ARCH.x64.epollEvent),
    ...syscalls(abi.x64Syscalls),
  ],
  arm64: [...some((name) => arm64Only.has(name)), ...openFlags('arm64'), ...structClaims(abi.ARCH.arm64.epollEvent)],
};

/** aarch64 has the generic table, which every system's headers hold. */
export const genericSyscallClaims: readonly Claim[] = syscalls(abi.arm64Syscalls);

function openFlags(arch: abi.ArchName): Claim[] {
  return Object.entries(abi.ARCH[arch].openFlags).map(([name, value]) => constant(name, value));
}

function syscalls(table: Readonly<Record<string, number>>): Claim[] {
  return Object.entries(table).map(([name, number]) => constant(`__NR_${name}`, number));
}

/** The kernel's names of all errno numbers. */
export const errnoClaims: readonly Claim[] = Array.from({ length: 133 }, (_, i) => i + 1).flatMap((number) => {
  const name = abi.errnoName(number);
  return name === undefined ? [] : [constant(name, number)];
});
