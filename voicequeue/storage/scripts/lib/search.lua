-- Search by a text, without regard to case (voicequeue/domain/search_text.py).

-- Return a function that returns whether a text may be found in a job: as a whole id, key or metadata value, or at the
-- beginning of a word of a name. `search`: forms (of the text, folded: composed and decomposed), parts (the same as they
-- are in a spec), whole (only whole values), fold (what letters beyond ASCII become).
local SEARCHED_FIELDS = { 'persona_id', 'voice_name', 'orders', 'message_ids', 'spec' }
local function text_search(search)
  local function fold(text) return (text:lower():gsub('[\194-\244][\128-\191]*', search.fold)) end

  local function has_part(text, parts)
    for _, part in ipairs(parts) do
      if text and string.find(text, part, 1, true) then return true end
    end
    return false
  end

  local function equals(value)
    local folded = type(value) == 'string' and fold(value)
    for _, form in ipairs(search.forms) do
      if folded == form or folded == 'message-' .. form then return true end
    end
    return false
  end

  local function has_message(ids)
    for _, id in ipairs(ids and cjson.decode(ids) or {}) do
      if equals(id) then return true end
    end
    return false
  end

  local function begins_word(text, form)
    local at = string.find(text, form, 1, true)
    while at and at > 1 and string.find(text:sub(at - 1, at - 1), '%w') do at = string.find(text, form, at + 1, true) end
    return at
  end

  local function is_named(name)
    if search.whole or type(name) ~= 'string' then return equals(name) end
    for _, form in ipairs(search.forms) do
      if begins_word(fold(name), form) then return true end
    end
    return false
  end

  local function is_in_spec(text)
    if not has_part(fold(text), search.parts) then return false end
    local spec = cjson.decode(text)
    if equals(spec.key) or is_named(spec.name) or type(spec.song) == 'table' and is_named(spec.song.title) then return true end
    for _, value in pairs(type(spec.metadata) == 'table' and spec.metadata or {}) do
      if equals(value) then return true end
    end
    return equals(spec.persona_id)
  end

  return function(id, persona, name, orders, messages, spec)
    return equals(id) or equals(persona) or is_named(name) or orders and has_part(fold(orders), search.forms)
      or has_message(messages) or is_in_spec(spec)
  end
end
