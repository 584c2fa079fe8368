import { describe, expect, test } from 'vitest';
import * as abi from '../../src/abi/index.ts';

describe('names that older kernel headers lack', () => {
  test('have the values of the newest', () => {
    expect({
      flags: [abi.VFIO_MIGRATION_STOP_COPY, abi.VFIO_MIGRATION_P2P, abi.VFIO_MIGRATION_PRE_COPY],
      features: [
        abi.VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
        abi.VFIO_DEVICE_FEATURE_BUS_MASTER,
        abi.VFIO_DEVICE_FEATURE_DMA_BUF,
        abi.VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2,
      ],
      others: [
        abi.VFIO_PRECOPY_INFO_REINIT,
        abi.VFIO_DEVICE_FLAGS_CDX,
        abi.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP,
        abi.MFD_NOEXEC_SEAL,
        abi.PIDFD_THREAD,
      ],
    }).toEqual({ flags: [1, 2, 4], features: [9, 10, 11, 12], others: [1, 0x100, 1, 8, 0x80] });
    expect(abi.VFIO_DEVICE_STATE).toEqual({
      ERROR: 0,
      STOP: 1,
      RUNNING: 2,
      STOP_COPY: 3,
      RESUMING: 4,
      RUNNING_P2P: 5,
      PRE_COPY: 6,
      PRE_COPY_P2P: 7,
    });
  });

  test('have the layouts of the newest, up to where `argsz` lets them end', () => {
    expect(abi.vfio_precopy_info).toMatchObject({
      size: 24,
      fields: { argsz: ['u32', 0], flags: ['u32', 4], initial_bytes: ['u64', 8], dirty_bytes: ['u64', 16] },
    });
    expect(abi.vfio_device_feature_mig_data_size).toMatchObject({ size: 8, fields: { stop_copy_length: ['u64', 0] } });
    expect(abi.vfio_device_bind_iommufd).toMatchObject({
      size: 16,
      fields: { argsz: ['u32', 0], flags: ['u32', 4], iommufd: ['s32', 8], out_devid: ['u32', 12] },
    });
    expect(abi.vfio_device_attach_iommufd_pt).toMatchObject({
      size: 12,
      fields: { argsz: ['u32', 0], flags: ['u32', 4], pt_id: ['u32', 8] },
    });
    expect(abi.vfio_device_detach_iommufd_pt).toMatchObject({
      size: 8,
      fields: { argsz: ['u32', 0], flags: ['u32', 4] },
    });
  });
});

describe('BPF opcodes', () => {
  test('are the sums that a disassembler shows', () => {
    expect({
      'ld [k]': abi.BPF_LD | abi.BPF_W | abi.BPF_ABS,
      'jeq #k': abi.BPF_JMP | abi.BPF_JEQ | abi.BPF_K,
      'jgt #k': abi.BPF_JMP | abi.BPF_JGT | abi.BPF_K,
      'jge #k': abi.BPF_JMP | abi.BPF_JGE | abi.BPF_K,
      'jset #k': abi.BPF_JMP | abi.BPF_JSET | abi.BPF_K,
      'ja +k': abi.BPF_JMP | abi.BPF_JA,
      'and #k': abi.BPF_ALU | abi.BPF_AND | abi.BPF_K,
      'ret #k': abi.BPF_RET | abi.BPF_K,
    }).toEqual({
      'ld [k]': 0x20,
      'jeq #k': 0x15,
      'jgt #k': 0x25,
      'jge #k': 0x35,
      'jset #k': 0x45,
      'ja +k': 0x05,
      'and #k': 0x54,
      'ret #k': 0x06,
    });
  });
});

describe('v1 and v2 device states', () => {
  test('do not share values under one name', () => {
    expect(abi.VFIO_DEVICE_STATE_V1_STOP).not.toBe(abi.VFIO_DEVICE_STATE.STOP);
    expect(abi.VFIO_DEVICE_STATE_V1_ERROR).toBe(abi.VFIO_DEVICE_STATE_V1_SAVING | abi.VFIO_DEVICE_STATE_V1_RESUMING);
  });
});
