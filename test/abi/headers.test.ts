import { describe, expect, test, type TestContext } from 'vitest';
import * as iommufd from '../../src/abi/iommufd.ts';
import { archClaims, commonClaims, errnoClaims, genericSyscallClaims, grown, unclaimed, type Claim } from './claims.ts';
import { headersOf, headersVersion, probe, type Answers } from './probe.ts';
import { patient } from '../support/patience.ts';

const version = headersVersion();
const reason =
  version === undefined
    ? ' (skipped: gcc or the kernel headers are not installed)'
    : version < 0x06_01_00
      ? ' (skipped: the kernel headers are older than 6.1)'
      : '';

const headers = [
  'asm/poll.h',
  'linux/audit.h',
  'linux/auxvec.h',
  'linux/capability.h',
  'linux/close_range.h',
  'linux/elf.h',
  'linux/errno.h',
  'linux/eventpoll.h',
  'linux/fcntl.h',
  'linux/filter.h',
  'linux/fs.h',
  'linux/ioctl.h',
  'linux/memfd.h',
  'linux/mman.h',
  'linux/mount.h',
  'linux/pci_regs.h',
  'linux/pidfd.h',
  'linux/prctl.h',
  'linux/sched.h',
  'linux/ptrace.h',
  'linux/resource.h',
  'linux/seccomp.h',
  'linux/stat.h',
  'linux/time.h',
  'linux/timerfd.h',
  'linux/uio.h',
  'linux/vfio.h',
  'linux/wait.h',
  'sys/eventfd.h',
];

/** Names younger than Linux 6.1, the oldest headers the comparison accepts, and one that later headers dropped. */
const mayBeMissing = [
  'MFD_NOEXEC_SEAL',
  'PIDFD_THREAD',
  'SECCOMP_IOCTL_NOTIF_SET_FLAGS',
  'SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP',
  'VFIO_DEVICE_ATTACH_IOMMUFD_PT',
  'VFIO_DEVICE_BIND_IOMMUFD',
  'VFIO_DEVICE_DETACH_IOMMUFD_PT',
  'VFIO_DEVICE_FEATURE_BUS_MASTER',
  'VFIO_DEVICE_FEATURE_DMA_BUF',
  'VFIO_DEVICE_FEATURE_MIG_DATA_SIZE',
  'VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2',
  'VFIO_DEVICE_FLAGS_CDX',
  'VFIO_DEVICE_STATE_PRE_COPY',
  'VFIO_DEVICE_STATE_PRE_COPY_P2P',
  'VFIO_MIGRATION_PRE_COPY',
  'VFIO_MIG_GET_PRECOPY_INFO',
  'VFIO_PCI_HOT_RESET_FLAG_DEV_ID',
  'VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED',
  'VFIO_PRECOPY_INFO_REINIT',
  'VFIO_TYPE1_NESTING_IOMMU',
  'vfio_device_attach_iommufd_pt',
  'vfio_device_bind_iommufd',
  'vfio_device_detach_iommufd_pt',
  'vfio_device_feature_mig_data_size',
  'vfio_precopy_info',
];

/** A header that came with Linux 6.2, and all that is of it. */
const prelude = ['#if __has_include(<linux/iommufd.h>)', '#include <linux/iommufd.h>', '#endif'].join('\n');
mayBeMissing.push(...Object.keys(iommufd));

/** `name` of `name`, `name size`, `name.field offset`. */
const subject = (name: string): string => /^\w+/.exec(name)?.[0] ?? name;

/** The lower bits of a value that fits into them, signed or not; any other value as it is. */
function cut(value: bigint, bits: number): bigint {
  return value >= -(2n ** BigInt(bits - 1)) && value < 2n ** BigInt(bits) ? BigInt.asUintN(bits, value) : value;
}

/** What the headers say of each claim they know; to be equal to {@link said}. */
function heard(claims: readonly Claim[], { values }: Answers): Record<string, bigint> {
  return Object.fromEntries(
    claims.flatMap(({ name, bits }) => {
      const value = values.get(name);
      return value === undefined ? [] : [[name, cut(value, bits)]];
    }),
  );
}

/** What src/abi says of each claim, less those the headers are allowed to lack and do lack. */
function said(claims: readonly Claim[], { missing }: Answers, allowed: readonly string[] = []): Record<string, bigint> {
  const excused = new Set(missing.filter((name) => allowed.includes(subject(name))));
  return Object.fromEntries(
    claims.filter(({ name }) => !excused.has(name)).map(({ name, value, bits }) => [name, cut(value, bits)]),
  );
}

function report({ annotate }: TestContext, { values, missing }: Answers): Promise<unknown> {
  const subjects = [...new Set(missing.map(subject))];
  return annotate(`${values.size} claims compared; the headers lack ${subjects.join(', ') || 'nothing'}`);
}

describe('the installed kernel headers', () => {
  test.skipIf(reason !== '')(
    `agree with every constant and struct of src/abi${reason}`,
    { timeout: patient(300_000) },
    async (context) => {
      const answers = probe(headers, commonClaims, { prelude });
      expect(heard(commonClaims, answers)).toEqual(said(commonClaims, answers, mayBeMissing));
      await report(context, answers);
    },
  );

  test.skipIf(reason !== '')(`agree with every errno name${reason}`, { timeout: patient(300_000) }, () => {
    const answers = probe(['linux/errno.h'], errnoClaims);
    expect(heard(errnoClaims, answers)).toEqual(said(errnoClaims, answers));
    // All but 41 and 58, which the kernel skips.
    expect(answers.values.size).toBe(131);
  });

  test.skipIf(reason !== '')(
    `agree with arm64Syscalls in the generic table${reason}`,
    { timeout: patient(300_000) },
    () => {
      const answers = probe(['asm-generic/unistd.h'], genericSyscallClaims, {
        // What asm/unistd.h of aarch64 defines first.
        prelude: '#define __ARCH_WANT_NEW_STAT\n#define __ARCH_WANT_SET_GET_RLIMIT\n#define __ARCH_WANT_SYS_CLONE3',
      });
      expect(heard(genericSyscallClaims, answers)).toEqual(said(genericSyscallClaims, answers));
    },
  );

  for (const [arch, archHeaders] of [
    ['x64', ['asm/unistd.h', 'linux/eventpoll.h', 'linux/fcntl.h', 'linux/ptrace.h', 'asm/ptrace.h', 'sys/user.h']],
    ['arm64', ['linux/eventpoll.h', 'linux/fcntl.h', 'asm/ptrace.h']],
  ] as const) {
    const found = reason === '' ? headersOf(arch) : undefined;
    const why = reason === '' && found === undefined ? ` (skipped: no ${arch} headers)` : reason;
    test.skipIf(why !== '')(`agree with what is particular to ${arch}${why}`, { timeout: patient(300_000) }, () => {
      const answers = probe(archHeaders, archClaims[arch], found);
      expect(heard(archClaims[arch], answers)).toEqual(said(archClaims[arch], answers));
    });
  }
});

describe('the comparison', () => {
  test.skipIf(reason !== '')(
    `finds what is wrong and what the headers lack${reason}`,
    { timeout: patient(300_000) },
    () => {
      const claims: Claim[] = [
        { name: 'right', expression: 'VFIO_TYPE1_IOMMU', value: 1n, bits: 32 },
        { name: 'wrong', expression: 'VFIO_TYPE1v2_IOMMU', value: 4n, bits: 32 },
        { name: 'no_constant', expression: 'VFIO_NO_SUCH_NAME', value: 0n, bits: 32 },
        { name: 'no_struct', expression: 'sizeof(struct vfio_no_such_struct)', value: 8n, bits: 32 },
        { name: 'no_field', expression: '__builtin_offsetof(struct vfio_device_info, nothing)', value: 8n, bits: 32 },
        { name: 'negative', expression: '1 << 31', value: 0x8000_0000n, bits: 32 },
        { name: 'too_wide', expression: '0x180000000LL', value: 0x8000_0000n, bits: 32 },
      ];
      const answers = probe(['linux/vfio.h'], claims);
      expect(answers.missing).toEqual(['no_constant', 'no_struct', 'no_field']);
      expect(heard(claims, answers)).toEqual({
        right: 1n,
        wrong: 3n,
        negative: 0x8000_0000n,
        too_wide: 0x1_8000_0000n,
      });
      expect(Object.keys(said(claims, answers, ['no_struct']))).toEqual([
        'right',
        'wrong',
        'no_constant',
        'no_field',
        'negative',
        'too_wide',
      ]);
    },
  );

  test('covers every export but functions and what is compared in another form', () => {
    expect(unclaimed).toEqual([
      'ARCH',
      '_IO',
      '_IOC',
      '_IOR',
      '_IOW',
      '_IOWR',
      'arm64Syscalls',
      'errnoName',
      'errnoNumber',
      'fieldWidth',
      'struct',
      'x64Syscalls',
    ]);
  });

  test('asks at least as much as when it was written', () => {
    expect(commonClaims.length).toBeGreaterThanOrEqual(850);
    expect(archClaims.x64.length).toBeGreaterThanOrEqual(157);
    expect(archClaims.arm64.length).toBeGreaterThanOrEqual(107);
    expect(genericSyscallClaims.length).toBeGreaterThanOrEqual(61);
  });

  test('asks each thing once', () => {
    for (const claims of [commonClaims, archClaims.x64, archClaims.arm64, genericSyscallClaims]) {
      expect(new Set(claims.map(({ name }) => name)).size).toBe(claims.length);
    }
  });

  test('may miss only names that exist', () => {
    const subjects = new Set(commonClaims.map(({ name }) => subject(name)));
    expect([...mayBeMissing, ...grown].filter((name) => !subjects.has(name))).toEqual([]);
  });
});
