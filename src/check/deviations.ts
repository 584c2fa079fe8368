import { ShimError } from '../error.ts';

/** A rule that a driver is known to break. */
export interface Deviation {
  /** The rule's id. */
  readonly rule: string;
  /** How the driver breaks it. */
  readonly why: string;
  /** Where that can be seen: source file, function and version. */
  readonly source: string;
}

/** What is known of a driver. */
export interface DeviationList {
  readonly name: string;
  /** The driver by the names that the kernel has for it, and what is made after it here. */
  readonly drivers: readonly string[];
  readonly deviations: readonly Deviation[];
}

type Reason = readonly [why: string, source: string];

function list(name: string, drivers: readonly string[], deviations: Readonly<Record<string, Reason>>): DeviationList {
  const entries = Object.entries(deviations).map(([rule, [why, source]]) => ({ rule, why, source }));
  return { name, drivers: [name, ...drivers], deviations: entries };
}

const zeroInPreCopy = (source: string): { readonly 'v2-precopy-end': Reason } => ({
  'v2-precopy-end': ['a read for which there is no data returns 0, in pre-copy too', source],
});

/** The kernel has no code to report with, though drivers offer and begin a log. */
const unreported: { readonly 'v2-log-report': Reason } = {
  'v2-log-report': [
    'a kernel without CONFIG_IOMMUFD_DRIVER, as Debian 12 and 13 have, begins a log and answers each REPORT with EOPNOTSUPP',
    'include/linux/iova_bitmap.h 6.12; drivers/vfio/vfio_main.c 6.12, vfio_ioctl_device_feature_logging_report',
  ],
};

/** A driver that takes its state record by record, and looks at none of it when RESUMING is left. */
function looksAtNothing(source: string): Readonly<Record<string, Reason>> {
  return {
    'v2-refuses-nothing': ['RESUMING is left without a look at what was written', source],
    'v2-refuses-truncated': ['a record that is not whole is not missed when RESUMING is left', source],
    'v2-refused-for-good': ['RESUMING is left though a write has failed', source],
  };
}

const MLX5 = 'drivers/vfio/pci/mlx5/main.c 6.12, mlx5vf_pci_step_device_state_locked';
const VIRTIO = 'drivers/vfio/pci/virtio/migrate.c 6.12, virtiovf_pci_step_device_state_locked';
const QAT = 'drivers/vfio/pci/qat/main.c 6.12';
const HISI = 'drivers/vfio/pci/hisilicon/hisi_acc_vfio_pci.c 6.12';
const MTTY = 'samples/vfio-mdev/mtty.c 6.12';
const XE = 'drivers/vfio/pci/xe/main.c 7.1';
const HISI_V1 = 'patches of 2021, vfio/hisilicon: register the driver to vfio';
const MLX5_V1 = 'patches of October 2021, mlx5: Implement vfio_pci driver for mlx5 devices';
const NVIDIA_V1 = 'nvidia-vgpu-vfio.c of the 460 branch';
const SPDK_V1 = 'SPDK 22.01, lib/nvmf/vfio_user.c';
const VFIO_USER = 'libvfio-user of September 2023, docs/vfio-user.rst';
const LIBVFIO = 'libvfio-user b52bff7, lib/migration_priv.h, migr_states';

const hisiReset: Reason = [
  'a reset resets the device, and the driver keeps its migration state and its data_fd, as its flags are not STOP_COPY alone',
  `${HISI}, hisi_acc_vf_pci_aer_reset_done`,
];

const libvfioArcs: Readonly<Record<string, Reason>> = {
  'v1-arc-stop-stop-copy': ['the table of transitions has no 0 to 2', LIBVFIO],
  'v1-arc-stop-resuming': ['the table of transitions has no 0 to 4', LIBVFIO],
};

/** By driver. Who checks the real driver learns which of them do not happen any more. */
export const deviationLists: readonly DeviationList[] = [
  list('qat', ['qat_vfio_pci'], {
    ...zeroInPreCopy(`${QAT}, qat_vf_save_read`),
    'v2-refuses-nothing': [
      'what lies in the buffer is judged, which saving and resuming share, and nobody clears',
      `${QAT}, qat_vf_load_device_data`,
    ],
    'v2-refuses-truncated': [
      'the whole buffer is judged, however much of it was written',
      `${QAT}, qat_vf_load_device_data`,
    ],
  }),
  list('mlx5', ['mlx5_vfio_pci'], { ...looksAtNothing(MLX5), ...unreported }),
  list('mtty', [], {
    ...zeroInPreCopy(`${MTTY}, mtty_save_read`),
    'v2-refused-for-good': [
      'a header that is refused was taken, and RESUMING is left if enough was written',
      `${MTTY}, mtty_resume_write, mtty_load_state`,
    ],
    'v2-log-second-start': ['the log is a stub: each START and STOP succeeds', `${MTTY}, mtty_log_start`],
    ...unreported,
  }),
  list('pds', ['pds_vfio_pci'], unreported),
  list('hisi', ['hisi_acc_vfio_pci'], {
    ...zeroInPreCopy(`${HISI}, hisi_acc_vf_save_read`),
    'v2-reset-stop': hisiReset,
    'v2-reset-stop-copy': hisiReset,
    'v2-reset-resuming': hisiReset,
    'v2-reset-pre-copy': hisiReset,
    'v2-session-ends-reset': hisiReset,
    'v2-refused-for-good': [
      'RESUMING is left if the length is right, though match data was refused',
      `${HISI}, hisi_acc_vf_load_state, vf_qm_load_data`,
    ],
    'v2-refused-reset': hisiReset,
  }),
  list('virtio', ['virtio_vfio_pci'], looksAtNothing(VIRTIO)),
  list('xe', ['xe_vfio_pci'], {
    'v2-size': ['an errno is returned as a size', `${XE}, xe_vfio_pci_get_data_size`],
    'v2-stop-copy-left': [
      'STOP_COPY is left with EIO if the device is not done',
      'drivers/gpu/drm/xe/xe_gt_sriov_pf_control.c 7.1, xe_gt_sriov_pf_control_finish_save_vf',
    ],
  }),
  list('vfio-user', [], {
    'v2-precopy-initial': ['no message asks for VFIO_MIG_GET_PRECOPY_INFO', VFIO_USER],
    ...zeroInPreCopy(`${VFIO_USER}: VFIO_USER_MIG_DATA_READ`),
  }),
  list('vendor-v1', ['libvfio-user'], libvfioArcs),
  list('hisi-v1', [], {
    'v1-data-again': [
      'pending_bytes counts down by each byte that is read, below 0 too',
      `${HISI_V1}, acc_vf_region_migration_rw`,
    ],
    'v1-refuses-nothing': [
      'RUNNING loads if data_size is not 0, and succeeds if it is',
      `${HISI_V1}, acc_vf_set_device_state`,
    ],
    'v1-refuses-truncated': ['whatever lies in the data section is loaded', `${HISI_V1}, acc_vf_set_device_state`],
    'v1-refuses-garbage': [
      'match data is checked if it comes as a transaction of its own',
      `${HISI_V1}, acc_vf_data_transfer`,
    ],
  }),
  list('mlx5-v1', [], {
    'v1-save-end': [
      'the window moves after pending_bytes was taken, so a buffer of 0 bytes is the last',
      `${MLX5_V1}, mlx5vf_pci_handle_migration_pending_bytes`,
    ],
    'v1-repeat': ['an image is kept until a reset, and is at its end', `${MLX5_V1}, mlx5vf_pci_set_device_state`],
    'v1-data-pieces': [
      'a read across a page puts each part at the begin of the buffer',
      `${MLX5_V1}, mlx5vf_pci_copy_device_state_to_user`,
    ],
    'v1-refuses-nothing': ['without an image nothing is loaded', `${MLX5_V1}, mlx5vf_pci_set_device_state`],
  }),
  list('nvidia-v1', ['nvidia-vgpu-vfio'], {
    'v1-data-read': ['data is there by mmap alone', `${NVIDIA_V1}, nv_vgpu_vfio_access`],
  }),
  list('spdk-v1', [], {
    ...libvfioArcs,
    'v1-save-end': [
      'pending_bytes is all of the state until a buffer of 0 bytes was shown',
      `${SPDK_V1}, vfio_user_migration_prepare_data`,
    ],
    'v1-stop-copy-direct': [
      'only a device that came from pre-copy has something pending',
      `${SPDK_V1}, vfio_user_migration_device_state_transition`,
    ],
    'v1-repeat': [
      'a controller that has given its state away neither takes one nor gives it again until a reset',
      `${SPDK_V1}, vfio_user_migration_device_state_transition`,
    ],
    'v1-data-again': ['a read of the data leaves nothing pending', `${SPDK_V1}, vfio_user_migration_read_data`],
    'v1-refuses-nothing': [
      'what lies in the data section is loaded',
      `${SPDK_V1}, vfio_user_migration_device_state_transition`,
    ],
    'v1-refuses-truncated': [
      'what lies in the data section is loaded',
      `${SPDK_V1}, vfio_user_migration_device_state_transition`,
    ],
  }),
];

/** The list of this name; the names that there are, if it is none. */
export function deviationsNamed(name: string): DeviationList | undefined {
  return deviationLists.find((each) => each.name === name);
}

/** What is known of a driver by the name that the kernel has for it. */
export function deviationsOf(driver: string): DeviationList | undefined {
  const plain = driver.replaceAll('-', '_');
  return deviationLists.find(({ drivers }) => drivers.some((each) => each.replaceAll('-', '_') === plain));
}

/** No file of deviations has more. */
const MOST = 1000;

/** Deviations of somebody's own, as JSON: a list of objects with rule, why and source. Throws `ERR_FILE_CORRUPT`. */
export function parseDeviations(text: string, rules: ReadonlySet<string>): Deviation[] {
  const found = parsed(text);
  if (!Array.isArray(found) || found.length > MOST) throw bad('is no list');
  return found.map((entry: unknown, n) => {
    const { rule, why, source } = (entry ?? {}) as Record<string, unknown>;
    if (typeof rule !== 'string' || typeof why !== 'string' || typeof source !== 'string') {
      throw bad(`entry ${n + 1} has not the texts rule, why and source`);
    }
    if (!rules.has(rule)) throw bad(`entry ${n + 1}: there is no rule ${JSON.stringify(rule)}`);
    return { rule, why, source };
  });
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw bad(`is no JSON (${error instanceof Error ? error.message : String(error)})`);
  }
}

function bad(why: string): ShimError {
  return new ShimError('ERR_FILE_CORRUPT', `deviations: ${why}`, { errno: 'EINVAL' });
}
