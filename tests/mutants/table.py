"""The faults, each with the tests nearest to it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MUTANTS", "Mutant"]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault."""

    label: str
    file: str
    before: str
    """Occurs exactly once in the file."""
    after: str
    tests: tuple[str, ...]
    survives: str = ""
    """Why no test catches it; empty where one does."""


def _faults(file: str, tests: str, *faults: tuple[str, str, str]) -> tuple[Mutant, ...]:
    """Return the faults of one file, given as (label, before, after), with the tests that are run for each."""
    return tuple(Mutant(label, file, before, after, tuple(tests.split())) for label, before, after in faults)


EDITING = (
    *_faults(
        "wave_ops/editing.py",
        "tests/wave_ops/test_editing.py",
        ("the order of the first step at every step", "order=orders[j - 1]", "order=orders[0]"),
        ("orders of the inversion from the wrong end", "order=orders[j - 1]", "order=orders[-j]"),
        ("guidance towards the negative prompt", "(cond - uncond)", "(uncond - cond)"),
        ("attention extended in every step", "extending=warping and", "extending="),
    ),
    *_faults(
        "wave_ops/controls.py",
        "tests/wave_ops/test_editing.py tests/wave_ops/test_controls.py",
        (
            "edges in natural order instead of the step's",
            "self._all.index_select(0, frames)",
            "self._all.index_select(0, frames.sort().values)",
        ),
        ("edges of a batch in natural order", "self._read(list(keyframes))", "self._read(sorted(keyframes))"),
        ("edges of all keyframes are read at every step", "if self._all is None:", "if True:"),
        ("the last ControlNet alone acts", "if total is not None:", "if False:"),
        ("a ControlNet acts in the wrong half", "<= steps - step_index <", "<= step_index - 1 <"),
        ("a ControlNet's own weight is ignored", " if weight is None else weight", ""),
    ),
    *_faults(
        "tasks/memory.py",
        "tests/tasks/test_memory_limit.py tests/tasks/test_vae_batches.py",
        (
            "the VAE's batch is never halved",
            "        if batch.frames > 1:\n            return replace",
            "        if False:\n            return replace",
        ),
        ("a smaller batch is forgotten", "        _FITTED[device] = min(fitted", "        _ = min(fitted"),
        (
            "the stage that ran out of memory goes on with its budget",
            "        self._budget = min(self._budget, fitted)\n",
            "",
        ),
    ),
    *_faults(
        "tasks/vae_batches.py",
        "tests/tasks/test_vae_batches.py",
        (
            "what ran out of memory is left out",
            "        batch = smaller\n",
            "        batch = smaller\n        del waiting[: len(part)]\n",
        ),
        ("any error halves the batch", "if not is_out_of_memory(error) or smaller is None:", "if smaller is None:"),
    ),
    *_faults(
        "wave_ops/change_mask.py",
        "tests/wave_ops/test_change_mask.py",
        ("one bright pixel makes a cell of the mask", "int(_LEAST_PART * pixels.shape[-1]) + 1", "1"),
        ("the threshold of the last keyframe alone", "counts += np.bincount", "counts = np.bincount"),
        ("the middle instead of Otsu's threshold", "int(between.argmax())", "int(len(between) // 2)"),
    ),
    *_faults(
        "wave_ops/conditioning.py",
        "tests/wave_ops/test_conditioning.py tests/tasks/models/test_sdxl.py",
        ("the edit branches are given the source prompt", "text=self.text[-count:]", "text=self.text[:count]"),
        ("the pooled prompts of the first branches", "else self.pooled[-count:]", "else self.pooled[:count]"),
        ("the sizes exchanged", "height, width = (side", "width, height = (side"),
        ("the states after the last layer of the text encoders", "hidden_states[-2]", "hidden_states[-1]"),
    ),
    *_faults(
        "wave_ops/settings.py",
        "tests/wave_ops/test_editing.py tests/wave_ops/test_schedule.py",
        ("injection in the last steps", "self.steps - step_index < round", "step_index <= round"),
        ("the published window in both phases", '("published", "inversion")', '("published", "editing")'),
    ),
    *_faults(
        "wave_ops/diffusion.py",
        "tests/tasks/models/test_safe_precision.py",
        ("decoded NaN becomes black frames", "if not torch.stack(finite).all():", "if False:"),
    ),
    *_faults(
        "wave_ops/finite.py",
        "tests/tasks/models/test_safe_precision.py",
        ("NaN in latents is stored", "if not np.isfinite(values).all():", "if False:"),
        ("weights are taken as they are", "        if bad:\n", "        if False:\n"),
    ),
    *_faults(
        "wave_ops/unet.py",
        "tests/wave_ops/test_unet.py tests/wave_ops/test_editing.py tests/wave_ops/test_inversion.py",
        (
            "injection reaches the unconditional branch alone",
            "return source.repeat(self._step.branches, *[1] * (source.ndim - 1))",
            "return torch.cat([source, source, *[0 * source] * (self._step.branches - 2)])",
        ),
        (
            "self-attention's input is never warped",
            "fused = self._fuse(site, features, self._sizes[features.shape[2]])",
            "fused = features",
        ),
        ("the anchor's keys are kept from step to step", "            self._anchors.clear()\n", ""),
        ("features of the previous batch are kept from step to step", "            self._last.clear()\n", ""),
        (
            "a ResNet's input is never warped",
            "fused = self._fuse(site, features, (height, width))",
            "fused = features",
        ),
        (
            "the anchor comes after the frame's own tokens",
            "[anchor[:, None].expand_as(own), own]",
            "[own, own]",
        ),
        (
            "the anchor of a later batch is its own first frame",
            "        if anchor is None:\n            self._anchors",
            "        if True:\n            self._anchors",
        ),
        (
            "the anchor goes to the first place",
            "[others[:, :place], anchor[:, None], others[:, place:]]",
            "[anchor[:, None], others]",
        ),
        (
            "the first frame of every batch attends to itself alone",
            "self._has_anchor, self._more_follow = batch.start == 0, batch",
            "self._has_anchor, self._more_follow = True, batch",
        ),
        (
            "the anchor's keys of a call that failed are kept",
            "        self._forget_anchor(site)\n        features",
            "        features",
        ),
    ),
)
CORE = (
    *_faults(
        "wave_ops/edges.py",
        "tests/wave_ops/test_edges.py",
        (
            "canny on grey",
            "cv2.Canny(np.ascontiguousarray(frame), low, high)",
            "cv2.Canny(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), low, high)",
        ),
        ("canny thresholds", "low: float = 100", "low: float = 20"),
    ),
    *_faults(
        "wave_ops/flow.py",
        "tests/wave_ops/test_flow.py",
        (
            "DIS on BGR",
            "(_enlarge(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), factor) for frame in (prev, cur))\n        search",
            "(_enlarge(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), factor) for frame in (prev, cur))\n        search",
        ),
        ("the refinement has no start", "search.calc(after, before, to_prev)", "search.calc(after, before, None)"),
        ("composed flow is summed without following it", "backward_warp(total[None], flow[None])[0]", "total"),
        ("DIS with the directions exchanged", "search.calc(after, before, None)", "search.calc(before, after, None)"),
    ),
    *_faults(
        "wave_ops/feature_warping.py",
        "tests/wave_ops/test_feature_warping.py tests/wave_ops/test_unet.py",
        (
            "the mask inverted",
            "torch.where(grid.mask[pair], source[grid.index[pair].int()], own)",
            "torch.where(grid.mask[pair], own, source[grid.index[pair].int()])",
        ),
        ("the pair reversed", "(previous, frame))\n", "(frame, previous))\n"),
        (
            "the border repeated instead of reflected",
            "return torch.minimum(folded, 2 * length - 1 - folded)",
            "return index.clamp(0, length - 1)",
        ),
        ("flow in pixels of the full grid", " * (width / flow_to_prev.shape[-1])", ""),
        (
            "the last cell of a grid does not fit in its type",
            "torch.iinfo(torch.int16).max + 1",
            "torch.iinfo(torch.int16).max + 2",
        ),
        ("maps of eight bytes a cell", "torch.int16 if cells", "torch.int64 if cells"),
    ),
    *_faults(
        "wave_ops/schedule.py",
        "tests/wave_ops/test_schedule.py tests/wave_ops/test_inversion.py",
        (
            "the inverse step from the wrong level",
            "level=step_index - 1, target=step_index)",
            "level=step_index, target=step_index)",
        ),
        (
            "v-prediction with the sign exchanged",
            "return sqrt(a) * output + sqrt(1 - a) * x",
            "return sqrt(a) * output - sqrt(1 - a) * x",
        ),
        ("the first latent at noise level 1", "float(scheduler.final_alpha_cumprod)", "1.0"),
    ),
    *_faults(
        "wave_ops/inversion.py",
        "tests/wave_ops/test_inversion.py",
        (
            "the noise at the timestep before",
            "self.timesteps[step_index - 1]}",
            "self.timesteps[max(step_index - 2, 0)]}",
        ),
        (
            "refinement from the refined latent",
            "schedule.inverse_step(x, noise_pred, j)",
            "schedule.inverse_step(following, noise_pred, j)",
        ),
    ),
    *_faults(
        "wave_ops/shuffle.py",
        "tests/wave_ops/test_shuffle.py",
        ("never reversed", "        frames.reverse()\n", "        pass\n"),
        (
            "the odd one always first",
            "first = 1 if odd_one_first and len(frames) % 2 else 2",
            "first = 1 if len(frames) % 2 else 2",
        ),
    ),
    *_faults(
        "wave_ops/masks.py",
        "tests/wave_ops/test_masks.py",
        (
            "occlusion without the frame's border",
            "return ~(returns & inside_frame(flow_positions(flow_to_prev)))",
            "return ~returns",
        ),
        (
            "the residual of the wrong image",
            "(backward_warp(prev, flow_to_prev) - cur)",
            "(backward_warp(cur, flow_to_prev) - prev)",
        ),
    ),
    *_faults(
        "wave_ops/keyframes.py",
        "tests/wave_ops/test_keyframes.py",
        ("the last frame is no keyframe", "{*range(start, end, interval), end - 1}", "{*range(start, end, interval)}"),
    ),
    *_faults(
        "wave_ops/warp.py",
        "tests/wave_ops/test_warp.py tests/wave_ops/test_masks.py",
        ("a resized flow keeps its length", "return (resized * ratio).to(flow.dtype)", "return resized.to(flow.dtype)"),
    ),
)
PROPAGATION = (
    *_faults(
        "wave_ops/propagation/interval.py",
        "tests/wave_ops/propagation/test_whole_frame.py",
        (
            "the later keyframe's candidates paired with mirrored frames, torch",
            "        early, late = ([step[index] for step in steps] for index in (0, 1))\n"
            "        return list(zip(early, reversed(late), strict=True))",
            "        early, late = ([step[index] for step in steps] for index in (0, 1))\n"
            "        return list(zip(early, late, strict=True))",
        ),
        (
            "the later keyframe's errors paired with mirrored frames, torch",
            "        early, late = ([step[index] for step in steps] for index in (0, 1))\n",
            "        early, late = ([step[index] for step in steps] for index in (0, 1))\n"
            "        late = [Candidate(a.image, b.error) for a, b in zip(late, reversed(late), strict=True)]\n",
        ),
        (
            "the later keyframe's errors paired with mirrored frames, compiled",
            "        late = list(report(concurrent.result() if concurrent else backward))\n",
            "        late = list(report(concurrent.result() if concurrent else backward))\n"
            "        late = [Candidate(a.image, b.error) for a, b in zip(late, reversed(late), strict=True)]\n",
        ),
        (
            "pixels that switched to the later keyframe are forgotten",
            "weight=weight, switched=chosen)",
            "weight=weight)",
        ),
        (
            "the selection is not warped from frame to frame",
            "holes = None if settings.keep_switched else occlusion_mask(flow, onward[index - 1][None])",
            "pass",
        ),
        (
            "the temporal guide is the keyframe, not the frame before",
            "image, matches = result.image, result.matches",
            "matches = result.matches",
        ),
        (
            "the temporal guide of every frame is the keyframe warped once",
            "for values in (positions, image))",
            "for values in (positions, _images(_to_list(np.stack(keyframes), np.uint8, back.device))))",
        ),
        ("positions are not chained from frame to frame", "positions, temporal = (inpaint", "_, temporal = (inpaint"),
        (
            "disocclusions are not inpainted",
            "(inpaint(backward_warp(values, back), disoccluded) for",
            "(backward_warp(values, back) for",
        ),
        (
            "the flows of a reversed clip are not exchanged",
            "_Clip(self.frames[::-1], self.onward[::-1], self.back[::-1])",
            "_Clip(self.frames[::-1], self.back[::-1], self.onward[::-1])",
        ),
    ),
    *_faults(
        "wave_ops/propagation/compositing.py",
        "tests/wave_ops/propagation/test_compositing.py",
        (
            "weights of the selection exchanged",
            "weight * first_error >= (1 - weight) * last_error",
            "(1 - weight) * first_error >= weight * last_error",
        ),
        (
            "the blend weighs the wrong candidate",
            "return (1 - weight) * first + weight * last",
            "return weight * first + (1 - weight) * last",
        ),
        (
            "gradients across the seam of two candidates",
            "gradient_x = torch.where(chosen[..., :-1], last.diff(dim=-1), first.diff(dim=-1))",
            "gradient_x = torch.where(chosen, last, first).diff(dim=-1)",
        ),
    ),
    *_faults(
        "wave_ops/propagation/patch_match.py",
        "tests/wave_ops/propagation/test_synthesis.py",
        (
            "the compiled search does not propagate along columns",
            "better = _try_match(m, y, x, row, m.nearest[y - step, x, 1]) or better",
            "pass",
        ),
        (
            "the compiled search does not propagate along rows",
            "better = _try_match(m, y, x, m.nearest[y, x - step, 0], column)",
            "pass",
        ),
    ),
    *_faults(
        "wave_ops/propagation/torch_grid.py",
        "tests/wave_ops/propagation/test_synthesis.py tests/wave_ops/propagation/test_torch_search.py",
        (
            "the torch search does not propagate along columns",
            "_DIRECTIONS = ((0, -1), (0, 1), (-1, 0), (1, 0))",
            "_DIRECTIONS = ((0, -1), (0, 1))",
        ),
        (
            "the torch search does not propagate along rows",
            "_DIRECTIONS = ((0, -1), (0, 1), (-1, 0), (1, 0))",
            "_DIRECTIONS = ((-1, 0), (1, 0))",
        ),
    ),
    *_faults(
        "wave_ops/propagation/detail.py",
        "tests/wave_ops/propagation/test_detail.py",
        ("no ridge towards the identity", "add_(RIDGE * _likeness(moments)[..., None])", "add_(0)"),
        (
            "detail is restored however little is explained",
            "trust = explained * (t * t * (3 - 2 * t))",
            "trust = explained",
        ),
    ),
)
STORAGE = (
    *_faults(
        "storage/video/_formats.py",
        "tests/storage/video/test_encode.py",
        ("macroblock tree: bytes differ between runs", '"mbtree": "0"', '"mbtree": "1"'),
    ),
    *_faults(
        "storage/video/_encode.py",
        "tests/storage/video/test_encode.py",
        ("odd sides are made even in black", 'mode="edge"', 'mode="constant"'),
    ),
    *_faults(
        "storage/video/_decode.py",
        "tests/storage/video/test_decode.py tests/storage/video/test_audio.py",
        ("the recording's clock is kept", "pts - start)", "pts)"),
    ),
    *_faults(
        "storage/video/_timing.py",
        "tests/storage/video/test_decode.py",
        ("the last frame's own duration is not read", "        return own\n", "        pass\n"),
        ("a frame out of order moves all later ones", "return self._last + 1  #", "pass  #"),
    ),
    *_faults(
        "storage/video/_packets.py",
        "tests/storage/video/test_packets.py",
        (
            "times of MXF stay in the order of decoding",
            '_SOMETIMES_IN_DECODING_ORDER = {"mxf"}',
            "_SOMETIMES_IN_DECODING_ORDER = set()",
        ),
        ("packets that the index lists are not missed", "- self._read) if is_indexed", "* 0) if is_indexed"),
        ("the stated end of MXF is not read", '.format.name == "mxf"', '.format.name == "none"'),
        ("a start that cannot be decoded stays as emptiness", "max(0, first.pts - self._earliest)", "0"),
    ),
    *_faults(
        "storage/video/_audio.py",
        "tests/storage/video/test_audio.py",
        ("PCM in MP4, which players play as noise", "is_pcm if container == _MP4", "False if container == _MP4"),
    ),
    *_faults(
        "storage/video/_audio_lanes.py",
        "tests/storage/video/test_audio.py",
        ("gaps of audio that is encoded again close up", "async=1:first_pts=0", "async=0"),
        (
            "what a decoder has kept is lost",
            "frames = list(self._codec.decode(packet))",
            "frames = list(self._codec.decode(packet)) if packet else []",
        ),
    ),
    *_faults(
        "storage/video/_frame_notes.py",
        "tests/storage/video/test_frame_notes.py",
        ("colours are looked at in the first frame alone", "if kind != colours:", "if colours is None:"),
        ("another shape of pixels is not noted", "if aspect not in (self._aspect, 0):", "if False:"),
    ),
    *_faults(
        "storage/video/_tone_mapping.py",
        "tests/storage/video/test_frame_notes.py",
        ("all frames are converted as SDR after a change", "= ToneMap.of(frame, side_data(frame))", "= None"),
    ),
    *_faults(
        "storage/video/_orientation.py",
        "tests/storage/video/test_frame_notes.py",
        ("a skewed picture counts as upright", "max(a, d)) * _DEGREES >", "max(a, d)) >"),
    ),
    *_faults(
        "storage/video/_packets.py",
        "tests/storage/video/test_frame_notes.py",
        ("frames that the decoder has kept are lost", "                yield from self._kept()\n", ""),
    ),
    *_faults(
        "storage/video/_timing.py",
        "tests/storage/video/test_frame_notes.py",
        (
            "a short recording that is joined is squeezed",
            "Fraction(_MOST_OUT_OF_ORDER * self._step)",
            "Fraction(10**9)",
        ),
        ("times that do not increase are repaired silently", "            self.repaired += 1\n", ""),
    ),
    *_faults(
        "storage/video/_decode.py",
        "tests/storage/video/test_frame_notes.py",
        ("a turn is forgotten", " and (frame.rotation or self._is_mjpeg)", ""),
        ("all frames are turned as the first", "if frame.rotation != self._rotation and", "if False and"),
    ),
    *_faults(
        "storage/video/_colour.py",
        "tests/storage/video/test_frame_notes.py",
        ("a matrix that is not known is followed silently", "if matrix is not None and not", "if False and not"),
    ),
    *_faults(
        "storage/video/_channels.py",
        "tests/storage/video/test_channels.py",
        ("channels stay in QuickTime's order", "is_same = is_in_order(own) and ", "is_same = "),
        ("an LFE is heard in the centre", '{"LFE"} & set(own) <= sets[each]', "True"),
    ),
    *_faults(
        "storage/video/_audio.py",
        "tests/storage/video/test_audio_times.py",
        ("Matroska moves audio that begins before zero", "    return 1 + max(0,", "    return 0 * max(0,"),
        ("a stream that never begins is encoded", "and not _is_decodable(reopened, index)", "and False"),
        ("TTA in Matroska, of which the end is lost", 'codec.name == "tta"', "False"),
    ),
    *_faults(
        "storage/video/_audio_lanes.py",
        "tests/storage/video/test_audio_times.py",
        ("a last packet without a duration is lost", "self._tick or not packet.duration)", "self._tick)"),
        ("another sample rate is copied", "            raise FormatChangeError\n", "            pass\n"),
    ),
    *_faults(
        "storage/video/_timing.py",
        "tests/storage/video/test_audio_times.py",
        ("packets with one time are played at once", "self._end if pts == self._own else 0", "0"),
        ("packets that are shorter than a tick are moved", "duration > _SHORT and ", ""),
    ),
    *_faults(
        "storage/video/_check.py",
        "tests/storage/video/test_check.py",
        ("Matroska's later times are wrong", 'is_matroska = "matroska" in', 'is_matroska = "" in'),
        ("timestamps are compared by seconds", "error > tick / 2", "error > 1"),
        ("packets that the output lacks are no matter", "missing <= damaged and not extra", "not extra"),
    ),
    *_faults(
        "storage/video/_tone_mapping.py",
        "tests/storage/video/test_tone_mapping.py",
        ("HLG without its system gamma", "(_HLG_GAMMA - 1)", "(0)"),
        ("HDR is clipped instead of compressed", "return light * scale", "return light"),
    ),
    *_faults(
        "storage/video/_crop.py",
        "tests/storage/video/test_source.py",
        ("a crop from the wrong side", "_TOP, _LEFT, _RIGHT = 0x54AA, 0x54BB", "_TOP, _LEFT, _RIGHT = 0x54BB, 0x54AA"),
        ("a crop in MP4 is not read", '{"matroska", "mp4"}', '{"matroska"}'),
    ),
    *_faults(
        "storage/video/_source.py",
        "tests/storage/video/test_source.py",
        ("huge pictures are allocated", "    _check_size(path, stream)\n", "    pass\n"),
    ),
    *_faults(
        "storage/video/_source.py",
        "tests/storage/video/test_decode.py",
        ("a name with % is a pattern of names", ', "pattern_type": "none"', ""),
        ("a device is opened", "if not stat.S_ISREG(mode):", "if False:"),
    ),
    *_faults(
        "storage/video/_orientation.py",
        "tests/storage/video/test_decode.py",
        (
            "quarter turns the wrong way",
            "mirror_columns=c < 0, mirror_rows=b < 0",
            "mirror_columns=b < 0, mirror_rows=c < 0",
        ),
    ),
    *_faults(
        "storage/row_access.py",
        "tests/storage/test_artifact.py",
        ("the rows of another object", "number = row // self._rows", "number = 0"),
        ("an object is written before it is whole", "if self._count == self._rows:", "if self._count:"),
        ("a writer begins inside an object", "if start % self._rows and start != self._length:", "if False:"),
    ),
    *_faults(
        "storage/_ownership.py",
        "tests/storage/test_artifact.py tests/storage/test_workspace.py",
        ("the groups above an artifact are not made", "        missing.insert(0, key)\n", "        break\n"),
        (
            "a damaged group counts",
            "if layout.load(files.read_many([key]).get(key)) is not None:",
            "if key in files.read_many([key]):",
        ),
    ),
    *_faults(
        "tasks/planning/batches.py",
        "tests/tasks/planning/test_shots.py",
        ("a task for every shot", "        if frames >= least:", "        if frames:"),
        ("tasks grow with the clip", "len(plan.frames) / most)", "0)"),
        ("a shard cuts an interval", "return interval * max(1, frames // interval)", "return frames"),
    ),
    *_faults(
        "tasks/planning/decoded_facts.py",
        "tests/flows/test_edit_dataset.py tests/tasks/test_stages.py",
        ("the cuts are not remembered", 'cuts=tuple(found["cuts"]))\n    artifact', "cuts=())\n    artifact"),
    ),
    *_faults(
        "storage/artifact.py",
        "tests/storage/test_artifact.py",
        ("an artifact of another digest counts", 'record["digest"] != (self.digest or record["digest"])', "False"),
        (
            "an artifact without all chunks is completed",
            "            self._check_chunks(name, sizes)\n",
            "            pass\n",
        ),
        (
            "a shard that was cut short stays",
            'self.files.delete(self._key(f"{name}/{key}") for key in keys)\n            arrays',
            "arrays",
        ),
        (
            "a damaged description stays",
            "        except DamagedError:\n            array = self._replace_array(name, spec)\n",
            "",
        ),
    ),
    *_faults(
        "storage/_layout.py",
        "tests/storage",
        ("the record is removed last", "return (0, key)", "return (9, key)"),
        (
            "the sizes of an artifact's files do not count",
            "all(present.get(key) == size for key, size in sizes.items())",
            "all(key in present for key in sizes)",
        ),
        (
            "a part counts without its chunks",
            'return all(present.get(key) == size for key, size in part["chunks"].items())',
            "return True",
        ),
    ),
    *_faults(
        "storage/digest.py",
        "tests/storage/test_digest.py tests/tasks/planning/test_plan.py",
        ("2.0 is not 2", "return int(value)", "return value"),
    ),
    Mutant(
        "a file is not flushed to the disk",
        "storage/files.py",
        "        os.fsync(file.fileno())\n",
        "",
        ("tests/storage/test_files.py", "tests/storage/test_kill.py"),
        survives="only a loss of power shows it",
    ),
)
TASKS = (
    *_faults(
        "tasks/stage.py",
        "tests/tasks/test_stage.py",
        ("results of another workspace are taken", "-{digest_of(batch.jobs[0].plan[spec].ref.workspace)[:8]}", ""),
        ("bad input is retried", "return isinstance(error, BaseException) and is_transient(error)", "return True"),
    ),
    *_faults(
        "tasks/propagate.py",
        "tests/tasks/test_stages.py",
        (
            "an interval writes the next one's keyframe",
            "return frames[:count]",
            "return frames",
        ),
        (
            "the flow of the next frames",
            "torch.from_numpy(flow[rows])",
            "torch.from_numpy(np.roll(flow, -1, axis=0)[rows])",
        ),
    ),
    *_faults(
        "tasks/planning/plan.py",
        "tests/tasks/planning/test_shots.py",
        ("pairs of keyframes of two shots", "((a + offset, b + offset) for shot", "((a, b + offset) for shot"),
        ("the video of the first shot alone", "[shared | found for found in own]", "[shared | own[0]]"),
    ),
    *_faults(
        "tasks/planning/stages.py",
        "tests/tasks/planning/test_shots.py",
        (
            "all shots have the identity of the first",
            "frames=None if outline.shots_shown is None else (outline.frames[0], outline.frames[-1]),",
            "frames=None,",
        ),
    ),
    *_faults(
        "tasks/planning/stages.py",
        "tests/tasks/planning/test_plan.py",
        (
            "full resolution has the identity of the plain result",
            'guided = {"full_resolution": True} if self.full_resolution else {}',
            "guided = {}",
        ),
        (
            "the seed does not change the inversion",
            "            seed=request.seed,\n",
            "",
        ),
    ),
    *_faults(
        "tasks/planning/method.py",
        "tests/tasks/planning/test_plan.py tests/tasks/planning/test_method.py",
        (
            "the model's advice goes before the request",
            "_first(choices.guidance_scale, advice.guidance_scale,",
            "_first(advice.guidance_scale, choices.guidance_scale,",
        ),
    ),
    *_faults(
        "tasks/decode.py",
        "tests/tasks/test_stages.py",
        ("cuts are lost", '"cuts": cuts', '"cuts": ()'),
    ),
    *_faults(
        "tasks/flow.py",
        "tests/tasks/test_stages.py",
        (
            "the flow of the clip's first shot in all",
            "plan.frames[pending.stored :]",
            "range(pending.stored, count + 1)",
        ),
        (
            "the mask of the first frame is the second's",
            "warp_mask(images[1:], images[:1], flows[1], flows[0], settings=settings)",
            "warp_mask(images[:1], images[1:], flows[0], flows[1], settings=settings)",
        ),
    ),
    *_faults(
        "tasks/edit.py",
        "tests/tasks/test_stages.py",
        ("a resumed edit repeats a step", "return steps - stored + 1,", "return min(steps - stored + 2, steps),"),
    ),
    *_faults(
        "tasks/stored_latents.py",
        "tests/tasks/test_stored_latents.py",
        (
            "each step is stored before the next",
            "self.running.append(_submit(self.thread, self._store, x, step_index))",
            "self._store(x, step_index)",
        ),
        ("any number of steps wait", "or len(self.running) == _BACKLOG)", ")"),
        ("a step after one that failed takes its place", "        if self.failed:\n", "        if False:\n"),
        (
            "a stage that fails hides the error of storing",
            "        except Exception:\n            steps.wait()\n",
            "        except Exception:\n",
        ),
        (
            "a failure of storing hides a cancellation",
            "        except RunCancelled:\n",
            "        except ZeroDivisionError:\n",
        ),
        ("the last steps are not waited for", "        steps.wait()\n    rows.flush()", "    rows.flush()"),
        ("threads know nothing of the run", "copy_context().run, function", "function"),
        ("nothing is read ahead", "(step_index, step_index - 1)[: step_index + 1]", "(step_index,)"),
    ),
    *_faults(
        "tasks/assess.py",
        "tests/tasks/test_stages.py",
        (
            "the edit is measured against itself",
            "        stream_frames(source, plan.frames, size=plan.size),\n",
            "        stream_shots(plan, PROPAGATE, plan.frames, size=plan.size),\n",
        ),
    ),
    *_faults(
        "tasks/models/weight_files.py",
        "tests/tasks/models/test_checkpoints.py",
        ("fp16 weights for float32", "if fp16 and (half or not full):", "if fp16:"),
    ),
)
SERVING = (
    *_faults(
        "flows/cli/serve.py",
        "tests/flows/cli/test_serve.py",
        ("other machines are served without a password", "if not password and not _is_loopback(host):", "if False:"),
        ("a GPU is given to two workers", " or len(set(found)) < len(found):", ":"),
    ),
    *_faults(
        "flows/cli/server.py",
        "tests/flows/cli/test_server.py",
        ("a server's demand for a password goes unnoticed", "return error.code in {401, 403}", "return False"),
        ("heartbeats as slow as the environment says", "os.environ.update(FIXED)", "pass"),
    ),
    *_faults(
        "flows/cli/children.py",
        "tests/flows/cli/test_children.py",
        ("a process that ignores SIGTERM is left", "_send(processes, signal.SIGKILL)", "pass"),
        ("a child that dies is not started again", "                _start_again(child)", "                pass"),
        ("a second signal changes nothing", "stop.at_once = stop.is_set()", "pass"),
    ),
    *_faults(
        "flows/settings.py",
        "tests/flows/test_automations.py",
        (
            "runs of slower clients are taken for dead",
            "LOST_AFTER_SECONDS: Final = 240",
            "LOST_AFTER_SECONDS: Final = 120",
        ),
    ),
    *_faults(
        "flows/automations.py",
        "tests/flows/test_automations.py",
        ("a run that has ended is marked as crashed", "force=False", "force=True"),
        (
            "an automation that was switched off is switched on",
            "all(each.enabled for each in found)",
            "any(each.enabled for each in found)",
        ),
        ("the webhook is called without the dataset's name", "event.resource.name", "event.resource.id"),
    ),
    *_faults(
        "flows/deployments.py",
        "tests/flows/test_deployments.py",
        ("deploying again resets a schedule", "if before is not None and before.schedules:", "if False:"),
    ),
    *_faults(
        "flows/cli/resume.py",
        "tests/flows/cli/test_resume.py",
        ("a run that goes on is resumed", "if run.state is None or not run.state.is_final():", "if run.state is None:"),
        (
            "an edit is resumed under the settings of the environment",
            'parameters.get("settings") or {}',
            'parameters.get("nothing") or {}',
        ),
    ),
    *_faults(
        "flows/cli/dataset.py",
        "tests/flows/cli/test_resume.py",
        (
            "a data set that cannot start ends like one with failed rows",
            "raise NothingStarted(error) from error",
            "raise",
        ),
    ),
    *_faults(
        "flows/edit_dataset.py",
        "tests/flows/test_edit_dataset.py",
        ("a row begins while the server is away", "wait_for_server()  #", "pass  #"),
    ),
    *_faults(
        "tasks/server_wait.py",
        "tests/tasks/test_server_wait.py",
        ("a run that is cancelled waits for the server", "        raise_if_stopped()\n", ""),
    ),
    *_faults(
        "tasks/evaluation/bench/scale.py",
        "tests/tasks/evaluation/bench/test_scale.py",
        ("GPUs count before all of them have begun", "on_gpu[gpus - 1].began", "on_gpu[0].began"),
        ("imports count among the costs of a clip", "max(1, last.done // 10)", "0"),
        ("a line of the log is counted twice", "self._place += len(whole) + len(newline)", "pass"),
    ),
)
EVALUATION = (
    *_faults(
        "wave_ops/scenes/reading.py",
        "tests/wave_ops/scenes/test_reading.py",
        (
            "metrics: a colour is reached on a hundredth of the object",
            "_COVERED_FRACTION: Final = 0.6",
            "_COVERED_FRACTION: Final = 0.01",
        ),
        (
            "metrics: the texture of an object is that of the whole frame",
            "texture=read_texture(frame, found)",
            "texture=read_texture(frame, np.ones_like(found))",
        ),
    ),
    *_faults(
        "wave_ops/metrics/scenes.py",
        "tests/wave_ops/metrics/test_scenes.py",
        ("metrics: no frame is a mix", "_MIXED_FRACTION: Final = 0.5", "_MIXED_FRACTION: Final = 1.0"),
        ("metrics: a soft edge is a mix", "_MIXED_FRACTION: Final = 0.5", "_MIXED_FRACTION: Final = 0.1"),
        ("metrics: another edit is a mix", "(off_line < _OFF_LINE)", "(off_line >= 0)"),
    ),
    *_faults(
        "wave_ops/metrics/video.py",
        "tests/wave_ops/metrics/test_video.py",
        ("metrics: the pulse of the scene counts", "made - true for made, true", "made for made, true"),
        ("metrics: the drift of the scene counts", "(made[end] - true[end])", "made[end]"),
        (
            "metrics: a flicker of keyframes is a pulse",
            "levels[first : last + 1] - line",
            "levels[first : last + 1] - levels[first]",
        ),
    ),
    *_faults(
        "tasks/evaluation/comparisons/edit_metrics.py",
        "tests/tasks/evaluation/comparisons/test_editing.py",
        ("metrics: a mix is a success", "edited=edited & ~mixed_frames(", "edited=edited | ~mixed_frames("),
        (
            "metrics: all frames are preserved if successful",
            "truth.untouched, checks.successful),",
            "truth.untouched, checks.rest_is_readable),",
        ),
        ("metrics: a pair is successful if its first frame is", "successful[:-1] & successful[1:]", "successful[:-1]"),
        ("metrics: frames of the source pass", "self.edited & self.kept, counted", "self.kept, counted"),
        ("metrics: PSNR of new shapes to the truth", "if kind in UNIQUE_KINDS:", "if kind:"),
        ("metrics: a kept shape has lost its colour", 'if name == "shape":', 'if name == "no shape":'),
        ("metrics: the texture of an object does not count", ', "texture": str(item.texture)}', "}"),
    ),
    *_faults(
        "tasks/evaluation/comparisons/video.py",
        "tests/tasks/evaluation/comparisons/test_video.py",
        ("video: the clip is overwritten by its edit", "frames = sources.copy()", "frames = sources"),
        ("video: rows share the first one's propagation", "settings=settings.propagation,", "settings=None,"),
        ("video: shots are edited together", "for shot in split_shots(clip)]", "for shot in (clip,)]"),
    ),
    *_faults(
        "tasks/evaluation/comparisons/video_metrics.py",
        "tests/tasks/evaluation/comparisons/test_video.py",
        ("video: keyframes are among the middles", "if first < frame < last", "if first <= frame <= last"),
        (
            "video: middles are compared with all frames",
            "checks.passing(middles) - checks.passing(at)",
            "checks.passing(middles) - checks.passing()",
        ),
    ),
    *_faults(
        "tasks/evaluation/clips/scene_clips.py",
        "tests/tasks/evaluation/clips/test_scene_clips.py",
        (
            "clips: both shots have the same colours",
            "colour=colour, background_colour=ground)",
            "colour=taken[0], background_colour=taken[1])",
        ),
    ),
    *_faults(
        "tasks/evaluation/statistics.py",
        "tests/tasks/evaluation/test_statistics.py",
        ("statistics: no correction", "(len(tested) - place) * p_value", "p_value"),
        ("statistics: Bonferroni instead of Holm", "(len(tested) - place) * p_value", "len(tested) * p_value"),
        ("statistics: a later p-value below an earlier one", "largest = max(largest, min(", "largest = (1.0 * min("),
        ("statistics: a mean for the median", "mean=float(np.median(finite))", "mean=float(np.mean(finite))"),
    ),
    *_faults(
        "tasks/evaluation/report/tables.py",
        "tests/tasks/evaluation/report/test_tables.py",
        (
            "statistics: the true edit is the best of a column",
            "mean is not None and not method.reference for",
            "mean is not None for",
        ),
    ),
    *_faults(
        "tasks/evaluation/results.py",
        "tests/tasks/evaluation/report/test_tables.py",
        (
            "statistics: verdicts are not corrected",
            "found = corrected([self._difference(*pair) for pair in pairs])",
            "found = tuple(self._difference(*pair) for pair in pairs)",
        ),
        (
            "statistics: every method has the same baseline",
            "return method.baseline or self.baseline",
            "return self.baseline",
        ),
        ("statistics: reference rows are compared", "return not method.reference and", "return"),
    ),
    *_faults(
        "tasks/evaluation/comparisons/propagation.py",
        "tests/tasks/evaluation/comparisons/test_propagation.py",
        ("evaluation: edited new shapes are compared with the drawn one", "kind not in UNIQUE_KINDS:", "not kind:"),
    ),
)
PEERS = (
    *_faults(
        "wave_ops/peers/token_propagation.py",
        "tests/wave_ops/peers/test_methods.py",
        ("peers: the farther keyframe has the greater weight", "if place == near[1] else", "if place == near[0] else"),
        (
            "peers: nearest neighbours among the edit's tokens",
            "nearest_tokens(source[frame], source[self._keyframes[place]])",
            "nearest_tokens(edited[0, place], source[self._keyframes[place]])",
        ),
    ),
    *_faults(
        "wave_ops/peers/token_merging.py",
        "tests/wave_ops/peers/test_methods.py",
        ("peers: merged tokens are summed", "torch.cat([means / counts,", "torch.cat([means,"),
        (
            "peers: the tokens of earlier chunks are forgotten",
            "return outputs[0 if onto_earlier else 1], joined",
            "return outputs[0 if onto_earlier else 1], local",
        ),
    ),
    *_faults(
        "wave_ops/peers/shuffled_grids.py",
        "tests/wave_ops/peers/test_methods.py",
        (
            "peers: frames leave their grids in another order",
            "frames[:, list(self._cells[: self._count])] =",
            "frames[:] =",
        ),
    ),
    *_faults(
        "wave_ops/peers/flow_attention.py",
        "tests/wave_ops/peers/test_methods.py",
        (
            "peers: trajectories go on where the flow is wrong",
            "if not trust[cell] or owner in reached:",
            "if owner in reached:",
        ),
    ),
    *_faults(
        "wave_ops/peers/attention_maps.py",
        "tests/wave_ops/peers/test_methods.py",
        (
            "peers: the source's maps inside the region",
            "torch.where(inside, maps[2], maps[0])",
            "torch.where(inside, maps[0], maps[2])",
        ),
        (
            "peers: maps of words at the wrong places",
            "maps[2, ..., edited] = maps[0][..., source]",
            "maps[2, ..., edited] = maps[0][..., edited]",
        ),
    ),
    *_faults(
        "wave_ops/peers/shared_noise.py",
        "tests/wave_ops/peers/test_methods.py",
        ("peers: away from the edit's prompt", "(slopes[1] - slopes[0])", "(slopes[0] - slopes[1])"),
    ),
)
WORKSPACES = (
    *_faults(
        "storage/_layout.py",
        "tests/fuzz/test_corpus.py",
        (
            "records: one without a digest passes for a record",
            """ or not isinstance(record.get("digest"), str):""",
            ":",
        ),
    ),
    *_faults(
        "storage/_layout.py",
        "tests/storage/test_workspace_states.py",
        ("states: an artifact without its group counts", """ | {NODE: len(group({"digest": record["digest"]}))}""", ""),
        ("states: the group is removed first", "return (4, key)", "return (-1, key)"),
    ),
    *_faults(
        "storage/artifact.py",
        "tests/storage/test_workspace_states.py",
        (
            "states: one with a record counts",
            "return layout.is_whole(record, self.files.sizes(self.path))",
            "return True",
        ),
        ("states: the record of another description stays", "gone = (layout.RECORD, f", "gone = (f"),
        ("states: an artifact is completed before the last write", "        if missing:\n", "        if False:\n"),
    ),
    *_faults(
        "storage/_ownership.py",
        "tests/storage/test_workspace_states.py",
        ("states: rows below a damaged group stay", "if present is not None:", "if layout.load(present) is not None:"),
    ),
    *_faults(
        "storage/inventory.py",
        "tests/storage/test_workspace_states.py",
        ("states: videos are collected", '_RESULTS: Set[Kind] = {"video", ', "_RESULTS: Set[Kind] = {"),
        ("states: frames of edits are collected", '{"keyframes", "frames"},', '{"keyframes"},'),
        ("states: what is complete counts as begun", "if abandoned and not artifact.complete and", "if abandoned and"),
        (
            "states: unfinished clips are collected",
            "if older_than is None and not _is_finished(artifacts):",
            "if False:",
        ),
        (
            "states: half an artifact counts in an inventory",
            "layout.is_whole(record, {key: entry.size for key, entry in content.items()})",
            "True",
        ),
    ),
)
MUTANTS = (*WORKSPACES, *EDITING, *CORE, *PROPAGATION, *STORAGE, *TASKS, *SERVING, *EVALUATION, *PEERS)
