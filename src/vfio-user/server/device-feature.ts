import {
  VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
  VFIO_DEVICE_FEATURE_MASK,
  VFIO_DEVICE_FEATURE_PROBE,
  vfio_device_feature,
  vfio_device_feature_dma_logging_control,
  vfio_device_feature_dma_logging_range,
  vfio_device_feature_dma_logging_report,
  vfio_device_feature_mig_state,
} from '../../abi/vfio-v2.ts';
import { vfio_user_dma_logging_control, vfio_user_dma_logging_report } from '../../abi/vfio-user.ts';
import type { V2Device } from '../../v2/device.ts';
import { bitmapSize } from '../../vfio/dma-log.ts';
import type { FeatureLog } from '../../vfio/server/feature-log.ts';
import { deviceFeature } from '../../vfio/server/feature-request.ts';
import { refuse } from '../../vfio/server/refuse.ts';
import { FOLLOWING, MessageArgument } from './argument.ts';
import { MAX_BODY } from '../wire/connection.ts';

const HEADER = vfio_device_feature.size;

/** `VFIO_USER_DEVICE_FEATURE`: the reply's body. Throws as the kernel's `VFIO_DEVICE_FEATURE` does. */
export function answerFeature(body: Uint8Array, device: V2Device, log: FeatureLog | undefined): Uint8Array {
  if (body.length < HEADER) throw refuse('EINVAL', `DEVICE_FEATURE: ${body.length} bytes`);
  const { argsz, flags } = vfio_device_feature.decode(body);
  if (argsz < body.length || argsz > MAX_BODY) throw refuse('EINVAL', `DEVICE_FEATURE: argsz ${argsz}`);
  const feature = flags & VFIO_DEVICE_FEATURE_MASK;
  if ((flags & VFIO_DEVICE_FEATURE_PROBE) === 0) {
    if (feature === VFIO_DEVICE_FEATURE_DMA_LOGGING_START) return startLogging(body, device, log);
    if (feature === VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT) return reportLog(body, device, log);
  }
  const struct = new Uint8Array(argsz);
  struct.set(body);
  const argument = new MessageArgument(struct);
  // the data goes by other messages: what stood in the place of a descriptor is given back
  deviceFeature(argument, device, (_resuming, tell) => tell(-1), log);
  const length = Math.max(body.length, argument.answer.length);
  return withArgsz(echoing(body, struct.subarray(0, length)), length);
}

/** Who asked for a state compares the reply with what was sent, its data_fd too (libvfio-user, samples/client.c: set_migration_state). */
function echoing(body: Uint8Array, reply: Uint8Array): Uint8Array {
  const [, at] = vfio_device_feature_mig_state.fields.data_fd;
  const end = HEADER + vfio_device_feature_mig_state.size;
  if (body.length >= end) reply.set(body.subarray(HEADER + at, end), HEADER + at);
  return reply;
}

function withArgsz(reply: Uint8Array, argsz: number): Uint8Array {
  vfio_device_feature.view(reply).argsz = argsz;
  return reply;
}

/** All addresses that a log may be asked for: who names no ranges means them (libvfio-user, samples/client.c). */
const EVERYTHING = { iova: 0n, length: 2n ** 63n };

function startLogging(body: Uint8Array, device: V2Device, log: FeatureLog | undefined): Uint8Array {
  const control = vfio_device_feature_dma_logging_control;
  const range = vfio_device_feature_dma_logging_range;
  const head = HEADER + vfio_user_dma_logging_control.size;
  if (body.length < head) throw refuse('EINVAL', `DMA_LOGGING_START: ${body.length} bytes`);
  const { page_size, num_ranges } = vfio_user_dma_logging_control.decode(body, HEADER);
  const named = body.subarray(head);
  if (num_ranges * range.size > named.length) throw refuse('EINVAL', `DMA_LOGGING_START: has not ${num_ranges} ranges`);
  const ranges = num_ranges === 0 ? range.encode(EVERYTHING) : named;
  const struct = new Uint8Array(HEADER + control.size);
  struct.set(body.subarray(0, HEADER));
  withArgsz(struct, struct.length);
  control.encode({ page_size, num_ranges: Math.max(1, num_ranges), ranges: FOLLOWING }, struct, HEADER);
  deviceFeature(new MessageArgument(struct, ranges), device, () => {}, log);
  const reply = body.slice();
  vfio_user_dma_logging_control.view(reply, HEADER).page_size = control.decode(struct, HEADER).page_size;
  return withArgsz(reply, reply.length);
}

function reportLog(body: Uint8Array, device: V2Device, log: FeatureLog | undefined): Uint8Array {
  const report = vfio_device_feature_dma_logging_report;
  const head = HEADER + vfio_user_dma_logging_report.size;
  if (body.length < head) throw refuse('EINVAL', `DMA_LOGGING_REPORT: ${body.length} bytes`);
  const { argsz } = vfio_device_feature.decode(body);
  const { iova, length, page_size } = vfio_user_dma_logging_report.decode(body, HEADER);
  if (page_size === 0n) throw refuse('EINVAL', 'DMA_LOGGING_REPORT: pages of 0 bytes');
  const size = bitmapSize({ iova, length }, page_size);
  if (head + size > argsz) throw refuse('EINVAL', `DMA_LOGGING_REPORT: argsz ${argsz} for a bitmap of ${size} bytes`);
  const struct = new Uint8Array(HEADER + report.size);
  struct.set(body.subarray(0, head));
  withArgsz(struct, struct.length);
  report.encode({ iova, length, page_size, bitmap: FOLLOWING }, struct, HEADER);
  const reply = new Uint8Array(head + size);
  reply.set(body.subarray(0, head));
  deviceFeature(new MessageArgument(struct, reply.subarray(head)), device, () => {}, log);
  return withArgsz(reply, reply.length);
}
